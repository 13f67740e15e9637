"""Where a pipeline works, in which precision, and compiled or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from addiffusion.backbones.lora import fuse_lora
from addiffusion.config import BackboneSection
from addiffusion.devices import resolve_device
from addiffusion.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""By their names in the configuration."""


def own_placement(pipeline: Any, network: Any) -> tuple[torch.device, torch.dtype]:
    """Where a pipeline works, offloaded or not, and the precision of its network."""
    weights = next(network.parameters())
    hooked = hasattr(network, "_hf_hook") or hasattr(network, "_diffusers_hook") or weights.device.type == "meta"
    # diffusers looks at every module of every part, which takes milliseconds
    return (torch.device(pipeline._execution_device) if hooked else weights.device), network.dtype


def wanted_placement(section: BackboneSection) -> tuple[torch.device, torch.dtype]:
    """Device and precision of the network that a configuration asks for.

    Raises:
        ConfigError: there is no such device here.
    """
    return resolve_device(section.device, key="backbone.device"), DTYPES[section.dtype]


def claim(
    pipeline: Any, network: nn.Module, section: BackboneSection, *, device: torch.device, dtype: torch.dtype
) -> None:
    """Fuse, move and cast what will do nothing else from now on.

    Args:
        pipeline: of diffusers.
        network: its denoiser.
        section: ``lora`` and ``channels_last`` are used.
        device: where networks work.
        dtype: precision of the denoiser and of a T5 encoder; other text encoders work in float32.

    Raises:
        WeightsError: the LoRA does not fit.
    """
    if section.lora is not None:
        fuse_lora(pipeline, section.lora)
    network.to(device=device, dtype=dtype).eval()
    if section.channels_last:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stub
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and part is not None:
            part.to(device=device, dtype=dtype if "T5" in type(part).__name__ else torch.float32).eval()


def compiled(network: nn.Module, section: BackboneSection, device: torch.device) -> Any:
    """The network as ``backbone.compile`` asks for it.

    Raises:
        ConfigError: CUDA graphs without a GPU.
    """
    if section.compile == "off":
        return network
    if section.compile == "cuda_graphs" and device.type != "cuda":
        raise ConfigError(f"backbone.compile=cuda_graphs needs a GPU, not {device.type}: use default or off.")
    return torch.compile(network, mode="reduce-overhead" if section.compile == "cuda_graphs" else "default")
