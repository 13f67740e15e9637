#!/usr/bin/env bash
# Makes an environment of its own for the original `image-reward` package, which can't live beside this project's timm
# and transformers. The pins are a set that was seen to work together on Python 3.11.
#
# Usage: scripts/image_reward_env.sh FOLDER [PYTHON]
#   FOLDER  where the environment is made
#   PYTHON  this project's interpreter (.venv/bin/python): the new one is of the same version, with the same Ray,
#           because its processes join the same cluster
set -euo pipefail
folder=${1:?give the folder of the new environment}
python=${2:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python}
version=$("$python" -c 'import platform; print(platform.python_version())')
ray=$("$python" -c 'import ray; print(ray.__version__)')

uv venv --python "$version" "$folder"
uv pip install --python "$folder/bin/python" \
  "ray==$ray" \
  torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 \
  image-reward==1.5 timm==0.6.13 fairscale==0.4.13 clip-anytorch==2.6.0 \
  transformers==4.55.4 tokenizers==0.21.4 huggingface-hub==0.36.2 diffusers==0.35.2 \
  accelerate==1.15.0 datasets==5.0.1 setuptools==80.10.2
"$folder/bin/python" -c 'import ImageReward, ray; print("image-reward imports beside ray", ray.__version__)'
echo "now set scorers.image_reward.backend=package scorers.image_reward.python=$folder/bin/python, or compare with"
echo "ADDIFFUSION_IMAGE_REWARD_PYTHON=$folder/bin/python uv run pytest tests/reward_service/test_image_reward_package.py"
