"""Images of clean predictions, decoded at one batch shape so that none depends on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Decoder = Callable[[Tensor], NDArray[np.uint8]]
"""Clean latents (b, c, h, w) to images (b, H, W, 3)."""


@torch.inference_mode()
def decoded(
    decoder: Decoder, z0_pred: Float[Tensor, "slot c h w"], slots: Sequence[int] | None, *, batch: int
) -> NDArray[np.uint8]:
    """Images (n, H, W, 3) of some slots, or of all.

    Args:
        decoder: of the backbone.
        z0_pred: of all slots.
        slots: those wanted, at least one; None: all, in one call.
        batch: images of a call.
    """
    if slots is None:
        return decoder(z0_pred.nan_to_num())
    padded = torch.tensor([*slots, *[slots[0]] * (-len(slots) % batch)], device=z0_pred.device)
    clean = z0_pred.index_select(0, padded).nan_to_num()
    parts = [decoder(clean[start : start + batch]) for start in range(0, len(clean), batch)]
    return np.concatenate(parts)[: len(slots)]
