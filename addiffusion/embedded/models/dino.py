"""The embedded feature model (DINO's role): a small timm VisionTransformer, trained by two-view contrast.

Its similarity says how alike two pictures are as pictures: views of one render differ by a small shift, colour
jitter, noise and mild blur, and every other render of the batch is a negative (arXiv:2002.05709 Eq. 1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import timm
from safetensors.torch import save
from torch import nn

from addiffusion.assets import REINSTALL
from addiffusion.errors import WeightsError
from addiffusion.files import whole_folder, write_bytes, write_text
from addiffusion.weights import LOAD_FAILURES, fill, gist, read_tensors

_WEIGHTS_FILE: Final = "model.safetensors"
_CONFIG_FILE: Final = "config.json"
_ARCHITECTURE: Final = "vit_tiny_patch16_224"
_SHAPE: Final[dict[str, Any]] = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 96,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 3.0,
    "num_classes": 0,
}


def build_dino() -> nn.Module:
    """Untrained weights; (n, 3, 64, 64) in [-1, 1] to (n, 96) features, not normalised."""
    return timm.create_model(_ARCHITECTURE, pretrained=False, **_SHAPE)


def save_dino(model: nn.Module, folder: Path) -> None:
    """Write ``config.json`` (timm architecture and its arguments) and ``model.safetensors``."""
    config = {"architecture": _ARCHITECTURE, "model_args": _SHAPE}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_folder(folder) as draft:
        write_text(draft / _CONFIG_FILE, json.dumps(config, indent=2) + "\n")
        write_bytes(draft / _WEIGHTS_FILE, save(weights))


def load_dino(folder: Path) -> nn.Module:
    """The model in evaluation mode on the CPU.

    timm itself would leave tensors that the file lacks at random numbers: without a classifier it loads loosely.

    Raises:
        WeightsError: the folder's files are missing or do not fit together.
    """
    try:
        config = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
        model = timm.create_model(config["architecture"], **config["model_args"])
    except LOAD_FAILURES as error:
        raise WeightsError(
            f"The feature model at {folder} can't be built ({gist(error)}): {REINSTALL}.", path=str(folder)
        ) from error
    path = folder / _WEIGHTS_FILE
    fill(model, read_tensors(path, advice=REINSTALL), part="the feature model", source=path, advice=REINSTALL)
    return model.eval()
