"""The input of the embedded world's models: pixels scaled to [-1, 1], nothing resized."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.scorers.images import ImageBatch


def network_view(images: ImageBatch) -> Float[Tensor, "n 3 h w"]:
    """float32 in [-1, 1]: the arithmetic of ``addiffusion.embedded.world.pixels.to_network``, to the last bit."""
    return images.once("network", lambda: images.pixels.to(torch.float32).div_(127.5).sub_(1.0))
