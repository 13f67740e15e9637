"""What can be seen of slots: predictions, images, features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.backbones.base import Backbone
from addiffusion.sampling.last_passes import LastPasses
from addiffusion.sampling.latents import Latents


class Seen:
    """Predictions, images and features of an engine's slots."""

    def __init__(self, backbone: Backbone, latents: Latents, *, images_per_pass: int, buckets: bool) -> None:
        """Slots without episodes.

        Args:
            backbone: the model.
            latents: their tensors.
            images_per_pass: guided as the engine is by itself.
            buckets: batches have the smallest power of two of rows that holds what is in them.
        """
        self._backbone, self._latents, self._buckets = backbone, latents, buckets
        self._last = LastPasses(width=backbone.middle_width, device=backbone.device)
        self.images_per_pass = images_per_pass
        """Images that a pass leads on when all are guided as the engine is by itself; batch of the decoders."""

    @property
    def z0_pred(self) -> Float[Tensor, "slot c h w"]:
        """One-step clean prediction of each slot; of a DONE slot, the result.

        Later ticks never change this tensor: they make a new one.
        """
        return self._latents.z0_pred

    def decode(self, slots: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Images (n, H, W, 3) of some slots' z0_pred, in batches of ``images_per_pass``; None: of all S, in one."""
        return self._decoded(self._backbone.decode, slots)

    @torch.inference_mode()
    def decode_one(self, slot: int) -> NDArray[np.uint8]:
        """Image (H, W, 3) of one slot's z0_pred, decoded alone."""
        return self._backbone.decode(self.z0_pred[slot : slot + 1].nan_to_num())[0]

    @property
    def previews(self) -> bool:
        """Whether ``preview`` costs less than ``decode``."""
        return self._backbone.previews

    @torch.inference_mode()
    def preview(self, slots: Sequence[int] | None = None, *, alone: bool = False) -> NDArray[np.uint8]:
        """Images (n, H, W, 3) as of ``decode``, but by the cheaper decoder: they are only looked at.

        Args:
            slots: those wanted; None: all S.
            alone: each is decoded by itself: where few of many slots are seen at a time, a batch is mostly padding.
        """
        if not alone or slots is None:
            return self._decoded(self._backbone.preview, slots)
        return np.concatenate([self._backbone.preview(self.z0_pred[slot : slot + 1].nan_to_num()) for slot in slots])

    def middle_features(self, slots: Sequence[int] | None = None) -> Float[Tensor, "some width"]:
        """Features (n, m) of the network's middle block at each slot's decision, for its own prompt.

        Args:
            slots: those wanted; None: all S. A slot that waits for no decision has zeros.
        """
        return self._last.middle_features(range(len(self.z0_pred)) if slots is None else slots)

    @torch.inference_mode()
    def _decoded(
        self, decoder: Callable[[Tensor], NDArray[np.uint8]], slots: Sequence[int] | None
    ) -> NDArray[np.uint8]:
        """Images of slots at a fixed batch shape, so that none depends on another; or at one for their number."""
        if slots is None:
            return decoder(self.z0_pred.nan_to_num())
        batch = bucket(len(slots), self.images_per_pass) if self._buckets else self.images_per_pass
        padded = torch.tensor([*slots, *[slots[0]] * (-len(slots) % batch)], device=self._backbone.device)
        clean = self.z0_pred.index_select(0, padded).nan_to_num()
        parts = [decoder(clean[start : start + batch]) for start in range(0, len(clean), batch)]
        return np.concatenate(parts)[: len(slots)]


def bucket(count: int, most: int) -> int:
    """The smallest power of two that holds ``count``, at most ``most``."""
    return min(most, 1 << max(count - 1, 0).bit_length())
