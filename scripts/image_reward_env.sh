#!/usr/bin/env bash
# Makes an environment of its own for the original `image-reward` package, which can't live beside this project's timm
# and transformers. Usage: scripts/image_reward_env.sh FOLDER
# Then: scorers.image_reward.backend=package scorers.image_reward.python=FOLDER/bin/python
# The interpreter and Ray must be the very versions of this project: its processes join the same cluster.
set -euo pipefail
folder=${1:?give the folder of the new environment}
here=$(cd "$(dirname "$0")/.." && pwd)
python=$(cd "$here" && uv run --no-sync python -c 'import sys; print(sys._base_executable)')
ray=$(cd "$here" && uv run --no-sync python -c 'import ray; print(ray.__version__)')

uv venv --python "$python" "$folder"
uv pip install --python "$folder/bin/python" \
  "ray[default]==$ray" \
  torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 \
  image-reward==1.5 timm==0.6.13 fairscale==0.4.13 clip-anytorch==2.6.0 \
  transformers==4.55.4 tokenizers==0.21.4 huggingface-hub==0.36.2 diffusers==0.35.2 \
  accelerate==1.15.0 datasets==5.0.1 setuptools==80.10.2
"$folder/bin/python" -c 'import ImageReward, ray; print("image-reward imports beside ray", ray.__version__)'
echo "ADDIFFUSION_IMAGE_REWARD_PYTHON=$folder/bin/python uv run pytest tests/reward_service/test_image_reward_package.py"
