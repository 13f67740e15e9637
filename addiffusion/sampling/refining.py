"""What refines need beside network passes, for all slots at once: masks, and fresh noise on clean predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.base import Backbone, PassRecord
from addiffusion.config import RefineSection
from addiffusion.sampling import masks
from addiffusion.sampling.solver_tables.table import SolverTable
from addiffusion.sampling.tenant import Tenant
from addiffusion.seeds import generator


class AtStep(NamedTuple):
    """An episode, and the schedule point it is at."""

    tenant: Tenant
    step: int


class Refining:
    """Makes masks and noise; what belongs to an episode is kept with its tenant."""

    def __init__(self, backbone: Backbone, refine: RefineSection, table: SolverTable) -> None:
        self._refine = refine
        self._shape, self._device = backbone.latent_shape, backbone.device
        self._inside: list[list[float]] = table.refine_noise.T.tolist()
        self._outside: list[list[float]] = table.point_noise.T.tolist()

    def give_masks(self, starting: Sequence[AtStep], last: PassRecord, rows: Sequence[int]) -> None:
        """Give each episode that starts to refine its mask, and the entropy of its words' attention.

        Args:
            starting: the episodes.
            last: the pass that ended in their decision.
            rows: theirs in it.
        """

        def words() -> masks.Maps:
            kept = torch.stack([one.tenant.words for one in starting])
            return masks.word_maps(last.attention_maps(rows), kept).cpu().numpy()

        source = masks.MaskSource(
            rows=len(rows),
            shape=self._shape[1:],
            words=words,
            attended=lambda: last.self_attention_maps(rows).cpu().numpy(),
            draws=lambda: [generator(one.tenant.seed, "mask", one.step) for one in starting],
        )
        made, entropies = masks.make_masks(self._refine, source)
        on_device = torch.from_numpy(made).to(self._device)
        for number, one in enumerate(starting):
            one.tenant.mask = on_device[number]
            if entropies is not None:
                one.tenant.attention_entropy = entropies[number]

    def noised(
        self, clean: Float[Tensor, "some c h w"], *, refine: Sequence[AtStep], renoise: Sequence[AtStep]
    ) -> Float[Tensor, "some c h w"]:
        """Clean predictions with fresh noise of each episode's own.

        Args:
            clean: of ``refine``, then of ``renoise``.
            refine: noised to the level of a refine, inside their mask alone.
            renoise: noised to their schedule point, everywhere.
        """
        drawn = torch.empty(len(clean), *self._shape)
        for noise, one in zip(drawn, [*refine, *renoise], strict=True):
            noise.normal_(generator=one.tenant.refine_noise)
        levels = [self._inside[one.step] for one in refine] + [self._outside[one.step] for one in renoise]
        alpha, sigma = torch.tensor([*zip(*levels, strict=True)], device=self._device).view(2, -1, 1, 1, 1)
        noised = drawn.to(self._device).mul_(sigma).addcmul_(clean, alpha)
        if refine:
            inside = noised[: len(refine)]
            torch.lerp(clean[: len(refine)], inside, _masks_of(refine), out=inside)
        return noised


def _masks_of(refine: Sequence[AtStep]) -> Float[Tensor, "some 1 h w"]:
    return torch.stack([one.tenant.mask for one in refine if one.tenant.mask is not None])[:, None]
