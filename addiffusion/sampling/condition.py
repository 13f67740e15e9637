"""Prompts of every row of the network batch, and classifier-free guidance in one batch."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.errors import ConfigError


class Condition:
    """Prompts of S slots. With guidance the batch has 2 S rows: what to lead away from, then what to lead to."""

    def __init__(self, backbone: Backbone, slots: int, *, guidance_scale: float) -> None:
        _check_scale(guidance_scale)
        self._backbone = backbone
        self._slots = slots
        self._guided = guidance_scale > 1
        self._guidance_scale = guidance_scale
        self._uncond = backbone.uncond()
        rows, device = self.rows_per_slot * slots, backbone.device
        self._hidden = self._uncond.hidden.to(device).repeat(rows, 1, 1)
        pooled = self._uncond.pooled
        self._pooled = None if pooled is None else pooled.to(device).repeat(rows, 1)
        self._scale = torch.full((slots, 1, 1, 1), guidance_scale, device=device)

    @property
    def rows_per_slot(self) -> int:
        """Passes through the network per NFE: 2 with guidance, else 1."""
        return 2 if self._guided else 1

    def row(self, slot: int) -> int:
        """Row of a slot's prompt in the network batch: the conditional half comes second."""
        return slot + self._slots if self._guided else slot

    def put(
        self, slot: int, embedding: PromptEmbedding, *, negative: PromptEmbedding | None, guidance_scale: float | None
    ) -> None:
        """Give a slot its prompts and its scale.

        Args:
            slot: where.
            embedding: what guidance leads to.
            negative: what it leads away from; None is the empty prompt.
            guidance_scale: the slot's own; None is the engine's.

        Raises:
            ConfigError: the scale is negative, or asks for guidance where the batch has no rows for it.
        """
        scale = self._guidance_scale if guidance_scale is None else guidance_scale
        self._check(scale, negative)
        self._write(self.row(slot), embedding)
        if self._guided:
            self._write(slot, negative or self._uncond)
        self._scale[slot] = scale

    def set_scale(self, slot: int, guidance_scale: float) -> None:
        """Give a slot another scale.

        Raises:
            ConfigError: it is negative, or asks for guidance where the batch has no rows for it.
        """
        self._check(guidance_scale, None)
        self._scale[slot] = guidance_scale

    def _check(self, scale: float, negative: PromptEmbedding | None) -> None:
        _check_scale(scale)
        if not self._guided and (scale > 1 or negative is not None):
            raise ConfigError(
                f"guidance_scale={scale:g} or a negative prompt needs guidance, but this engine was built with "
                f"backbone.guidance_scale={self._guidance_scale:g}: set it above 1.",
                guidance_scale=scale,
            )

    def predict(
        self, z: Float[Tensor, "slot c h w"], in_scale: Float[Tensor, "slot 1 1 1"], t: Float[Tensor, " slot"]
    ) -> Float[Tensor, "slot c h w"]:
        """Raw network output of every slot, guided where asked (arXiv:2207.12598 Eq. 6, in diffusers' scaling)."""
        if not self._guided:
            return self._denoise(in_scale * z, t)
        scaled = in_scale.expand(2, -1, 1, 1, 1) * z
        uncond, cond = self._denoise(scaled.flatten(0, 1), t.repeat(2)).chunk(2)
        return (cond - uncond).mul_(self._scale).add_(uncond)

    def _denoise(self, z: Tensor, t: Tensor) -> Tensor:
        if self._pooled is None:
            return self._backbone.denoise(z, t, self._hidden)
        return self._backbone.denoise(z, t, self._hidden, self._pooled)

    def _write(self, row: int, embedding: PromptEmbedding) -> None:
        self._hidden[row] = embedding.hidden.to(self._hidden.device)
        if self._pooled is not None:
            assert embedding.pooled is not None
            self._pooled[row] = embedding.pooled.to(self._pooled.device)


def _check_scale(scale: float) -> None:
    if not (scale >= 0 and math.isfinite(scale)):
        raise ConfigError(f"guidance_scale={scale:g} can't be used: give 0 or more.", guidance_scale=scale)
