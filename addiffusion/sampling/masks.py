"""Which region of a latent a refine re-denoises: from attention, or as a control. All masks are soft, 1 = redo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from addiffusion.config import RefineSection

CELLS = 8
"""Cells per side of the control masks."""
_REFERENCE_SIDE = 64
"""Latent side at which the blur is given."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSource:
    """What a mask can be made from; maps are computed only when the chosen kind asks for them."""

    shape: tuple[int, ...]
    """(h, w) of the latent."""
    words: Callable[[], Float[Tensor, "h w"]]
    """How much each pixel is attended to by the prompt's words."""
    attended: Callable[[], Float[Tensor, "h w"]]
    """How much each pixel is attended to by the others."""
    draws: Callable[[], torch.Generator]
    """The episode's own stream for this step."""


def make_mask(refine: RefineSection, source: MaskSource) -> tuple[Float[Tensor, "h w"], float | None]:
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


def map_entropy(attention: Float[Tensor, "h w"]) -> float:
    """Entropy of a map as a distribution over pixels, divided by its maximum ln(h w): 1 = spread evenly, 0 = no map."""
    share = attention / attention.sum().clamp_min(_TINY)
    return float(-(share * share.clamp_min(_TINY).log()).sum()) / math.log(attention.numel())


def attention_mask(attention: Float[Tensor, "h w"], *, tau: float, sigma_blur: float) -> Float[Tensor, "h w"]:
    """The under-attended region: pixels below the tau quantile of the map."""
    return soften((attention < attention.flatten().quantile(tau)).float(), sigma_blur=sigma_blur)


def grid_mask(height: int, width: int, *, sigma_blur: float) -> Float[Tensor, "h w"]:
    """Control: every other cell of a checkerboard, whatever the image."""
    index = torch.arange(CELLS)
    return soften(_spread(((index[:, None] + index) % 2).float(), height, width), sigma_blur=sigma_blur)


def random_mask(
    height: int, width: int, *, tau: float, sigma_blur: float, generator: torch.Generator
) -> Float[Tensor, "h w"]:
    """Control: as much area as the attention mask, in random cells."""
    noise = torch.rand(CELLS, CELLS, generator=generator)
    return soften(_spread((noise < noise.flatten().quantile(tau)).float(), height, width), sigma_blur=sigma_blur)


def soften(mask: Float[Tensor, "h w"], *, sigma_blur: float) -> Float[Tensor, "h w"]:
    """Blur a mask with a Gaussian of ``sigma_blur`` latent pixels at 64 x 64, scaled to this size; clamp to [0, 1]."""
    kernel = _gaussian(sigma_blur * mask.shape[-1] / _REFERENCE_SIDE, mask.device)
    radius = len(kernel) // 2
    # Replicated borders: with zeros the mask would fade towards the edge of the image.
    padded = functional.pad(mask[None, None], (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1))[0, 0].clamp(0, 1)


@lru_cache(maxsize=8)
def _gaussian(sigma: float, device: torch.device) -> Float[Tensor, " tap"]:
    radius = math.ceil(3 * sigma)
    taps = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return (taps / taps.sum()).to(device)


def _spread(cells: Float[Tensor, "cell cell"], height: int, width: int) -> Float[Tensor, "h w"]:
    return functional.interpolate(cells[None, None], size=(height, width), mode="nearest")[0, 0]
