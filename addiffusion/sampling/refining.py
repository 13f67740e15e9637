"""What refines need beside network passes: the region of a latent that is done again, and noise on clean predictions.

All masks are soft, 1 = redo. Masks of all slots that start to refine are made at once. A map is a few thousand numbers
at most: on the CPU in numpy it costs less than the launches of its kernels would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs] - it has none
from torch import Tensor

from addiffusion.backbones.base import Backbone, PassRecord
from addiffusion.config import RefineSection
from addiffusion.sampling.solver_tables.schedules import Schedule
from addiffusion.seeds import generator
from addiffusion.torch_typed import from_numpy

CELLS = 8
"""Cells per side of the control masks."""
_REFERENCE_SIDE = 64
"""Latent side at which the blur is given."""
_TINY, _FULL = np.float32(1e-12), np.float32(1)

Maps = Float32[NDArray[np.float32], "row h w"]
"""One number per latent pixel of each slot that refines, on the CPU."""


@dataclass(slots=True, kw_only=True)
class SlotEpisode:
    """Parts of an episode beside its latents: its words, its streams of noise, its last mask."""

    seed: int
    words: Bool[Tensor, " token"]
    """Tokens that are words of the prompt, on the backbone's device."""
    refine_noise: torch.Generator
    solver_noise: torch.Generator
    guidance_scale: float
    mask: Float[Tensor, "h w"] | None = None
    """Of its last refine; None before the first."""
    attention_entropy: float = 0.0


class AtStep(NamedTuple):
    """An episode, the index of its schedule point, and its schedule."""

    episode: SlotEpisode
    step: int
    schedule: Schedule


class Refining:
    """Masks and noise of refines. Holds nothing of an episode: that is ``SlotEpisode``."""

    def __init__(self, backbone: Backbone, refine: RefineSection) -> None:
        self._refine = refine
        self._shape, self._device = backbone.latent_shape, backbone.device

    def give_masks(self, starting: Sequence[AtStep], last: PassRecord, rows: Sequence[int]) -> None:
        """Give each episode that starts to refine its mask, and the entropy of its words' attention.

        Args:
            starting: the episodes.
            last: the pass that ended in their decision.
            rows: their rows of its batch.
        """

        def words() -> Maps:
            kept = torch.stack([one.episode.words for one in starting])
            return word_maps(last.attention_maps(rows), kept).cpu().numpy()

        source = MaskSource(
            rows=len(rows),
            shape=self._shape[1:],
            words=words,
            attended=lambda: last.self_attention_maps(rows).cpu().numpy(),
            draws=lambda: [generator(one.episode.seed, "mask", one.step) for one in starting],
        )
        made, entropies = make_masks(self._refine, source)
        on_device = from_numpy(made).to(self._device)
        for number, one in enumerate(starting):
            one.episode.mask = on_device[number]
            if entropies is not None:
                one.episode.attention_entropy = entropies[number]

    def noised(
        self, clean: Float[Tensor, "some c h w"], *, refine: Sequence[AtStep], renoise: Sequence[AtStep]
    ) -> Float[Tensor, "some c h w"]:
        """Clean predictions with fresh noise of each episode's own.

        Args:
            clean: predictions of ``refine``, then of ``renoise``.
            refine: noised to the level of a refine, inside their mask alone.
            renoise: noised to their schedule point, everywhere.
        """
        drawn = torch.empty(len(clean), *self._shape)
        for noise, one in zip(drawn, [*refine, *renoise], strict=True):
            noise.normal_(generator=one.episode.refine_noise)
        levels = [one.schedule.inside[one.step] for one in refine]
        levels += [one.schedule.outside[one.step] for one in renoise]
        alpha, sigma = torch.tensor([*zip(*levels, strict=True)], device=self._device).view(2, -1, 1, 1, 1)
        noised = drawn.to(self._device).mul_(sigma).addcmul_(clean, alpha)
        if refine:
            inside = noised[: len(refine)]
            torch.lerp(clean[: len(refine)], inside, _masks_of(refine), out=inside)
        return noised


def _masks_of(refine: Sequence[AtStep]) -> Float[Tensor, "some 1 h w"]:
    return torch.stack([one.episode.mask for one in refine if one.episode.mask is not None])[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSource:
    """Sources of masks; maps are computed only when the chosen kind asks for them."""

    rows: int
    """Masks to make."""
    shape: tuple[int, ...]
    """(h, w) of the latent."""
    words: Callable[[], Maps]
    """Attention of the prompt's words to each pixel."""
    attended: Callable[[], Maps]
    """Attention of the other pixels to each pixel."""
    draws: Callable[[], Sequence[torch.Generator]]
    """Each episode's own stream for its step."""


def make_masks(refine: RefineSection, source: MaskSource) -> tuple[Maps, list[float] | None]:
    """The masks of refines that start together, and the entropy of the words' attention where it was computed."""
    height, width = source.shape
    blur, tau = refine.sigma_blur, refine.tau
    if refine.mask == "grid":
        return grid_mask(height, width, sigma_blur=blur).repeat(source.rows, axis=0), None
    if refine.mask == "random":
        return random_masks(height, width, tau=tau, sigma_blur=blur, generators=source.draws()), None
    if refine.mask == "self_attention":
        return attention_masks(source.attended(), tau=tau, sigma_blur=blur), None
    words = source.words()
    return attention_masks(words, tau=tau, sigma_blur=blur), map_entropies(words)


def word_maps(maps: Float[Tensor, "row token h w"], words: Bool[Tensor, "row token"]) -> Float[Tensor, "row h w"]:
    """Attention to each pixel by the word that attends to it most; zero where a prompt has no words.

    Args:
        maps: of all tokens, none below zero.
        words: tokens that are words, on the same device.
    """
    return (maps * words[:, :, None, None]).amax(1)


def map_entropies(attention: Maps) -> list[float]:
    """Entropy of maps as distributions over pixels, divided by its maximum ln(h w): 1 = spread evenly, 0 = no map."""
    flat = attention.reshape(len(attention), -1)
    share = flat / np.maximum(flat.sum(axis=1, keepdims=True), _TINY)
    entropies = -(share * np.log(np.maximum(share, _TINY))).sum(axis=1)
    return [entropy / math.log(flat.shape[1]) for entropy in entropies.tolist()]


def attention_masks(attention: Maps, *, tau: float, sigma_blur: float) -> Maps:
    """The under-attended region: pixels below the tau quantile of their map."""
    return soften(_below_quantile(attention, tau), sigma_blur=sigma_blur)


def grid_mask(height: int, width: int, *, sigma_blur: float) -> Maps:
    """Control, one mask for all: every other cell of a checkerboard, whatever the image."""
    cells = np.indices((CELLS, CELLS)).sum(0) % 2 == 1
    return soften(_spread(cells[None], height, width), sigma_blur=sigma_blur)


def random_masks(
    height: int, width: int, *, tau: float, sigma_blur: float, generators: Sequence[torch.Generator]
) -> Maps:
    """Control: as much area as the attention masks, in random cells.

    Args:
        height: of the latent.
        width: of the latent.
        tau: quantile below which a cell is redone.
        sigma_blur: latent pixels at 64 x 64.
        generators: stream of each mask's episode.
    """
    noise = torch.stack([torch.rand(CELLS, CELLS, generator=generator) for generator in generators]).numpy()
    return soften(_spread(_below_quantile(noise, tau), height, width), sigma_blur=sigma_blur)


def soften(masks: NDArray[np.bool_] | Maps, *, sigma_blur: float) -> Maps:
    """Blur masks with a Gaussian of ``sigma_blur`` latent pixels at 64 x 64, scaled to this area; clamp to [0, 1].

    Two matrix products do for all masks what ``scipy.ndimage.gaussian_filter`` does for one, and round where it does.
    """
    *_, height, width = masks.shape
    sigma = sigma_blur * math.sqrt(height * width) / _REFERENCE_SIDE
    down = (_blur(height, sigma) @ masks).astype(np.float32)
    # No weight is negative: only rounding can leave [0, 1], and only above.
    return np.minimum((down @ _blur(width, sigma).T).astype(np.float32), _FULL)


@lru_cache(maxsize=8)
def _blur(size: int, sigma: float) -> NDArray[np.float64]:
    """The matrix that blurs along an axis. Borders are replicated: with zeros a mask would fade towards the edge."""
    untyped: Any = ndimage
    return untyped.gaussian_filter1d(np.eye(size), sigma, axis=0, mode="nearest", radius=math.ceil(3 * sigma))


def _below_quantile(values: Maps, tau: float) -> NDArray[np.bool_]:
    """Less than each map's tau quantile, interpolated or not: nothing lies between it and the next value above."""
    ranked = np.sort(values.reshape(len(values), -1), axis=1)
    return values < ranked[:, math.ceil(tau * (ranked.shape[1] - 1)), None, None]


def _spread(cells: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Nearest cell of each pixel."""
    rows, columns = np.arange(height) * CELLS // height, np.arange(width) * CELLS // width
    return cells[:, rows[:, None], columns]
