#!/usr/bin/env bash
# For the day a GPU is there: measures all that only a GPU can show, in under nine minutes, without Ray.
# Needs torch, diffusers, transformers, open_clip and timm. Without a network: put the wheels of what is missing into a
# folder and name it, WHEELS=folder scripts/gpu_day.sh
# Options: scripts/gpu_day.sh --help; all parts at the smallest size on a CPU: scripts/gpu_day.sh --device cpu --tiny
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${WHEELS:-}" ]; then
    python3 -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
fi
if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
exec "$python" -m scripts.gpu_day "$@"
