"""The network batch of a tick: prompts of its rows, and classifier-free guidance beside images without."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.errors import ConfigError
from addiffusion.sampling.moves import Pick


class Condition:
    """Prompts of S slots, and R rows of a pass: what to lead guided slots away from, then what to lead all slots to.

    Rows that nobody takes hold zeros and the empty prompt at t = 0.
    """

    def __init__(self, backbone: Backbone, slots: int, *, guidance_scale: float) -> None:
        _check_scale(guidance_scale)
        self._backbone = backbone
        self._slots = slots
        self._guidance_scale = guidance_scale
        self._uncond = backbone.uncond()
        # What to lead away from, by slot; what to lead to, by slot; and what rows have that nobody takes.
        entries, device = 2 * slots + 1, backbone.device
        self._hidden = self._uncond.hidden.to(device).repeat(entries, 1, 1)
        pooled = self._uncond.pooled
        self._pooled = None if pooled is None else pooled.to(device).repeat(entries, 1)
        self._scale = torch.full((slots, 1, 1, 1), guidance_scale, device=device)
        self._gathered: tuple[list[int], tuple[Tensor, ...]] | None = None
        self._scales: tuple[tuple[int, ...], Tensor] | None = None
        """Of the guided slots of the last pass, as long as none of them changes."""

    def put(
        self, slot: int, embedding: PromptEmbedding, *, negative: PromptEmbedding | None, guidance_scale: float | None
    ) -> bool:
        """Give a slot its prompts and its scale.

        Args:
            slot: where.
            embedding: what guidance leads to.
            negative: what it leads away from; None is the empty prompt.
            guidance_scale: the slot's own; None is the engine's.

        Returns:
            Whether its passes are guided: they take two rows then.

        Raises:
            ConfigError: the scale is negative, or asks for guidance that this engine does not compute.
        """
        guided = self.is_guided(guidance_scale, away=negative is not None)
        scale = self._guidance_scale if guidance_scale is None else guidance_scale
        self._write(slot, negative or self._uncond)
        self._write(self._slots + slot, embedding)
        self._scale[slot] = scale
        self._gathered = self._scales = None
        return guided

    def set_scale(self, slot: int, guidance_scale: float) -> bool:
        """Give a slot another scale; returns as ``put`` does.

        Raises:
            ConfigError: it is negative, or asks for guidance that this engine does not compute.
        """
        guided = self.is_guided(guidance_scale, away=False)
        self._scale[slot] = guidance_scale
        self._scales = None
        return guided

    def is_guided(self, guidance_scale: float | None, *, away: bool) -> bool:
        """Whether an image's passes are guided.

        Args:
            guidance_scale: its own; None is the engine's.
            away: it has a negative prompt.

        Raises:
            ConfigError: the scale is negative, or asks for guidance that this engine does not compute.
        """
        scale = self._guidance_scale if guidance_scale is None else guidance_scale
        _check_scale(scale)
        if self._guidance_scale <= 1 and (scale > 1 or away):
            raise ConfigError(
                f"guidance_scale={scale:g} or a negative prompt needs guidance, but this engine was built with "
                f"backbone.guidance_scale={self._guidance_scale:g}: set it above 1.",
                guidance_scale=scale,
            )
        return scale > 1

    def predict(
        self,
        pick: Pick,
        rows: int,
        z: Float[Tensor, "some c h w"],
        in_scale: Float[Tensor, "some 1 1 1"],
        t: Float[Tensor, " some"],
    ) -> Float[Tensor, "some c h w"]:
        """Raw network output, guided where asked (arXiv:2207.12598 Eq. 6, in diffusers' scaling).

        Args:
            pick: slots of the pass.
            rows: R, of the network batch.
            z: latents of those slots, in its order.
            in_scale: factors that scale them for the network.
            t: their timesteps.
        """
        guided, end = len(pick.guided), pick.rows
        batch, times = torch.zeros(rows, *z.shape[1:], device=z.device), torch.zeros(rows, device=z.device)
        torch.mul(in_scale, z, out=batch[guided:end])
        batch[:guided], times[:guided], times[guided:end] = batch[guided : 2 * guided], t[:guided], t
        output = self._backbone.denoise(batch, times, *self._prompts(pick, rows))
        cond = output[guided:end]
        if guided:
            uncond = output[:guided]
            cond[:guided].sub_(uncond).mul_(self._scales_of(pick.guided)).add_(uncond)
        return cond

    def _scales_of(self, guided: tuple[int, ...]) -> Float[Tensor, "some 1 1 1"]:
        if self._scales is None or self._scales[0] != guided:
            self._scales = guided, self._scale[list(guided)]
        return self._scales[1]

    def _prompts(self, pick: Pick, rows: int) -> tuple[Tensor, ...]:
        """What each row attends to, gathered anew where other slots take part than in the pass before."""
        nobody = [2 * self._slots] * (rows - pick.rows)
        wanted = [*pick.guided, *(self._slots + slot for slot in pick.slots), *nobody]
        if self._gathered is None or self._gathered[0] != wanted:
            which = torch.tensor(wanted, device=self._hidden.device)
            known = (self._hidden,) if self._pooled is None else (self._hidden, self._pooled)
            self._gathered = wanted, tuple(prompts.index_select(0, which) for prompts in known)
        return self._gathered[1]

    def _write(self, entry: int, embedding: PromptEmbedding) -> None:
        self._hidden[entry] = embedding.hidden.to(self._hidden.device)
        if self._pooled is not None:
            assert embedding.pooled is not None
            self._pooled[entry] = embedding.pooled.to(self._pooled.device)


def _check_scale(scale: float) -> None:
    if not (scale >= 0 and math.isfinite(scale)):
        raise ConfigError(f"guidance_scale={scale:g} can't be used: give 0 or more.", guidance_scale=scale)
