"""LoRA files (arXiv:2106.09685) added to a network's weights once, so that sampling costs what it cost before."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from addiffusion.errors import WeightsError

_KEY = re.compile(
    r"^(?:lora_unet_|lora_transformer_|unet\.|transformer\.)(?P<module>.+?)\."
    r"(?P<part>lora_down\.weight|lora_up\.weight|lora_A\.weight|lora_B\.weight|lora\.down\.weight|lora\.up\.weight|alpha)$"
)
_PARTS = {"lora_down": "down", "lora_A": "down", "lora.down": "down", "lora_up": "up", "lora_B": "up", "lora.up": "up"}


def read_lora(path: str) -> dict[str, Tensor]:
    """Tensors of a LoRA file.

    Raises:
        WeightsError: the file can't be read.
    """
    try:
        return load_file(Path(path).expanduser())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"backbone.lora={path!r} can't be read ({error}): give a local .safetensors file.", path=path
        ) from error


@torch.no_grad()
def fuse_lora(network: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """Add ``alpha / rank * up @ down`` to every weight that the file has a pair for; how many there were.

    Args:
        network: the denoiser.
        tensors: a LoRA as diffusers or kohya's scripts write it; parts for a text encoder are left out.

    Raises:
        WeightsError: the file is for another network.
    """
    modules = {name.replace(".", "_"): module for name, module in network.named_modules()}
    pairs: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        if match := _KEY.match(key):
            part = match["part"].removesuffix(".weight")
            pairs[match["module"].replace(".", "_")][_PARTS.get(part, part)] = tensor
    for name, pair in pairs.items():
        _add(modules.get(name), pair, name)
    if not pairs:
        raise WeightsError("backbone.lora holds no pair of matrices for a denoiser: give a LoRA of this model.")
    return len(pairs)


def _add(module: nn.Module | None, pair: Mapping[str, Tensor], name: str) -> None:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not {"up", "down"} <= pair.keys():
        raise WeightsError(f"backbone.lora has no use here: this network has no layer {name!r}.", layer=name)
    up, down = pair["up"].to(weight), pair["down"].to(weight)
    rank = down.shape[0]
    alpha = float(pair["alpha"]) if "alpha" in pair else float(rank)
    change = (up.flatten(1) @ down.flatten(1)) * (alpha / rank)
    if change.numel() != weight.numel():
        raise WeightsError(
            f"backbone.lora changes layer {name!r} by a matrix {tuple(change.shape)}, which does not fit its weight "
            f"{tuple(weight.shape)}: give a LoRA of this model.",
            layer=name,
        )
    weight += change.view_as(weight)
