"""From clean latents to images, by a pipeline's autoencoder or a tiny stand-in for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

DECODE_BATCH = 16
"""Most latents per pass of the decoder."""


class LatentDecoder:
    """Decodes in float32, in equal batches: a row's image never depends on what else is decoded."""

    def __init__(self, autoencoder: Any, device: torch.device) -> None:
        self._autoencoder = autoencoder.to(device=device, dtype=torch.float32).eval()
        if device.type == "cpu":
            self._autoencoder.to(memory_format=torch.channels_last)  # convolutions run a third faster
        config = autoencoder.config
        self._scale = config.scaling_factor
        self._shift = getattr(config, "shift_factor", None) or 0.0

    def __call__(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """Images (b, H, W, 3), in equal batches of at most DECODE_BATCH rows."""
        batch = min(len(z0), DECODE_BATCH)
        parts = [self._decode_batch(part, batch) for part in z0.split(batch)]
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _decode_batch(self, z0: Tensor, batch: int) -> Tensor:
        count = len(z0)
        z0 = functional.pad(z0, (0, 0, 0, 0, 0, 0, 0, batch - count))
        image = self._autoencoder.decode(z0 / self._scale + self._shift, return_dict=False)[0]
        # The rounding of diffusers' VaeImageProcessor, so that images agree with the pipeline's to the last bit.
        return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)[:count]
