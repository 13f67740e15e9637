"""Which region of a latent a refine re-denoises: from attention, or as a control. All masks are soft, 1 = redo.

A map is a few thousand numbers at most: on the CPU in numpy it costs less than the launches of its kernels would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from addiffusion.config import RefineSection

CELLS = 8
"""Cells per side of the control masks."""
_REFERENCE_SIDE = 64
"""Latent side at which the blur is given."""
_TINY = 1e-12

Map = Float32[NDArray[np.float32], "h w"]
"""One number per latent pixel, on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSource:
    """What a mask can be made from; maps are computed only when the chosen kind asks for them."""

    shape: tuple[int, ...]
    """(h, w) of the latent."""
    words: Callable[[], Map]
    """How much each pixel is attended to by the prompt's words."""
    attended: Callable[[], Map]
    """How much each pixel is attended to by the others."""
    draws: Callable[[], torch.Generator]
    """The episode's own stream for this step."""


def make_mask(refine: RefineSection, source: MaskSource) -> tuple[Map, float | None]:
    """The mask of one refine, and the entropy of the words' attention where it was computed."""
    height, width = source.shape
    blur, tau = refine.sigma_blur, refine.tau
    if refine.mask == "grid":
        return grid_mask(height, width, sigma_blur=blur), None
    if refine.mask == "random":
        return random_mask(height, width, tau=tau, sigma_blur=blur, generator=source.draws()), None
    if refine.mask == "self_attention":
        return attention_mask(source.attended(), tau=tau, sigma_blur=blur), None
    words = source.words()
    return attention_mask(words, tau=tau, sigma_blur=blur), map_entropy(words)


def word_map(maps: Float[Tensor, "token h w"], words: Int[Tensor, " word"]) -> Float[Tensor, "h w"]:
    """How much each pixel is attended to by the word that claims it most; zero where a prompt has no words.

    Args:
        maps: of all tokens.
        words: places of those that are words, on the same device.
    """
    return maps.index_select(0, words).amax(0) if len(words) else torch.zeros_like(maps[0])


def map_entropy(attention: Map) -> float:
    """Entropy of a map as a distribution over pixels, divided by its maximum ln(h w): 1 = spread evenly, 0 = no map."""
    share = attention / max(float(attention.sum()), _TINY)
    return float(-(share * np.log(np.maximum(share, _TINY))).sum()) / math.log(attention.size)


def attention_mask(attention: Map, *, tau: float, sigma_blur: float) -> Map:
    """The under-attended region: pixels below the tau quantile of the map."""
    return soften(_below_quantile(attention, tau), sigma_blur=sigma_blur)


def grid_mask(height: int, width: int, *, sigma_blur: float) -> Map:
    """Control: every other cell of a checkerboard, whatever the image."""
    return soften(_spread(np.indices((CELLS, CELLS)).sum(0) % 2 == 1, height, width), sigma_blur=sigma_blur)


def random_mask(height: int, width: int, *, tau: float, sigma_blur: float, generator: torch.Generator) -> Map:
    """Control: as much area as the attention mask, in random cells."""
    noise = torch.rand(CELLS, CELLS, generator=generator).numpy()
    return soften(_spread(_below_quantile(noise, tau), height, width), sigma_blur=sigma_blur)


def soften(mask: NDArray[np.bool_] | Map, *, sigma_blur: float) -> Map:
    """Blur a mask with a Gaussian of ``sigma_blur`` latent pixels at 64 x 64, scaled to this size; clamp to [0, 1]."""
    sigma = sigma_blur * mask.shape[-1] / _REFERENCE_SIDE
    # Replicated borders: with zeros the mask would fade towards the edge of the image.
    blurred = gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", radius=math.ceil(3 * sigma))
    return blurred.clip(0, 1)


def _below_quantile(values: Map, tau: float) -> NDArray[np.bool_]:
    """Less than the tau quantile, interpolated or not: nothing lies between it and the next value above."""
    rank = math.ceil(tau * (values.size - 1))
    return values < np.partition(values, rank, axis=None)[rank]


def _spread(cells: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Nearest cell of each pixel."""
    rows, columns = np.arange(height) * CELLS // height, np.arange(width) * CELLS // width
    return cells[np.ix_(rows, columns)]
