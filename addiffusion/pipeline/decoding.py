"""Images of a call, from its clean latents."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.pipeline import PipelineBackbone

PIXELS_AT_ONCE = 512 * 512
"""Pixels that keep a device busy: so many small images are decoded together."""


def decoded(
    pipe: Any, backbone: PipelineBackbone, z0: Float[Tensor, "n c h w"], *, slots: int
) -> Float[Tensor, "n 3 H W"]:
    """Images as the autoencoder gives them, in batches of one size: none depends on how many others there are.

    Args:
        pipe: the adaptive pipeline.
        backbone: its own models.
        z0: clean latents.
        slots: most images in a batch.
    """
    (height, width), _ = backbone.image_shapes
    batch = max(1, min(slots, PIXELS_AT_ONCE // (height * width)))
    padded = torch.cat([z0, z0[-1:].expand(-len(z0) % batch, -1, -1, -1)])
    with _without_overflow(pipe):
        parts = [backbone.decode_raw(part).clone() for part in torch.split(padded, batch)]
    return torch.cat(parts)[: len(z0)]


@contextmanager
def _without_overflow(pipe: Any) -> Generator[None]:
    """SDXL's autoencoder overflows in float16; its pipeline brings it to float32 for the while."""
    overflows = pipe.vae.dtype == torch.float16 and pipe.vae.config.get("force_upcast", False)
    if not overflows or not hasattr(pipe, "upcast_vae"):
        yield
        return
    pipe.vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        pipe.vae.to(dtype=torch.float16)
