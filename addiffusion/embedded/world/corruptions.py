"""Graded corruptions of images: what the quality scorers learn to rank.

Severity runs from 0 (the image itself) to 1 (hardly recognisable). The kinds stand for the ways a small diffusion
model fails: an early z0_pred is blurred, low in contrast and stained; a late one has molten shapes and ghosts.
All work on network-space images, ``(n, 3, h, w)`` in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

Images = Float[Tensor, "n 3 h w"]
Severity = Float[Tensor, " n"]

_BLUR_SIGMA_PX: Final = 6.0
_NOISE_STD: Final = 0.7
_EARLY_SIGMA_PX: Final = 5.0
_EARLY_SHRINK: Final = 0.6
_STAIN_STD: Final = 0.22
_STAIN_SIGMA_PX: Final = 4.0
_WARP_PX: Final = 4.0
_WARP_SIGMA_PX: Final = 6.0
_OCCLUDED_SIDE: Final = 0.8
_GHOST_ALPHA: Final = 0.55


class Corruption(Enum):
    """One way to spoil an image."""

    BLUR = "blur"
    NOISE = "noise"
    EARLY = "early"
    """Like the decoded z0_pred of an early step: blur, contrast shrunk towards the mean, low-frequency stains."""
    WARP = "warp"
    """Molten shapes: a smooth random displacement field."""
    OCCLUSION = "occlusion"
    GHOST = "ghost"
    """Another image of the batch shines through."""


def corrupt(images: Images, severity: Severity, kinds: Int[Tensor, " n"], generator: torch.Generator) -> Images:
    """Spoil image ``j`` by ``severity[j]`` in the way ``list(Corruption)[kinds[j]]``; severity 0 changes nothing.

    The ghost of an image is its neighbour in the batch, so a batch of one has no ghosts.

    Args:
        images: (n, 3, h, w) in [-1, 1]; left as they are.
        severity: (n,) in [0, 1].
        kinds: (n,) indices into ``Corruption``.
        generator: CPU stream of what is random in a corruption.
    """
    result = images.clone()
    neighbours = images.roll(1, dims=0)
    for index, kind in enumerate(Corruption):
        rows = ((kinds == index) & (severity > 0)).nonzero().flatten()
        if len(rows):
            spoil = _SPOILERS[kind]
            result[rows] = spoil(images[rows], severity[rows], neighbours[rows], generator).clamp(-1.0, 1.0)
    return result


def random_kinds(count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Uniformly drawn corruption indices."""
    return torch.randint(len(Corruption), (count,), generator=generator)


def gaussian_blur(images: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Blur image ``j`` by a Gaussian of ``sigma[j]`` pixels, reflecting at the borders.

    Done by the transfer function exp(-2 pi^2 sigma^2 f^2), so each image has its own sigma in one pass.
    """
    height, width = images.shape[-2:]
    pad = min(16, height - 1, width - 1)
    padded = F.pad(images, (pad, pad, pad, pad), mode="reflect")
    fft: Any = torch.fft  # its functions have no types
    fy = fft.fftfreq(padded.shape[-2])[:, None]
    fx = fft.rfftfreq(padded.shape[-1])[None, :]
    transfer = torch.exp(-2.0 * math.pi**2 * sigma[:, None, None, None] ** 2 * (fy**2 + fx**2))
    blurred: Tensor = fft.irfft2(fft.rfft2(padded) * transfer, s=padded.shape[-2:])
    return blurred[..., pad : pad + height, pad : pad + width]


def _column(severity: Severity) -> Float[Tensor, "n 1 1 1"]:
    return severity[:, None, None, None]


def _smooth_noise(shape: tuple[int, ...], sigma_px: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Low-frequency noise with standard deviation 1 per image and channel."""
    noise = gaussian_blur(torch.randn(shape, generator=generator), torch.full((shape[0],), sigma_px))
    return noise / noise.std(dim=(2, 3), keepdim=True).clamp_min(1e-6)


def _blur(images: Images, severity: Severity, _: Images, generator: torch.Generator) -> Images:
    del generator
    return gaussian_blur(images, severity * _BLUR_SIGMA_PX)


def _noise(images: Images, severity: Severity, _: Images, generator: torch.Generator) -> Images:
    return images + _NOISE_STD * _column(severity) * torch.randn(images.shape, generator=generator)


def _early(images: Images, severity: Severity, _: Images, generator: torch.Generator) -> Images:
    strength = _column(severity)
    blurred = gaussian_blur(images, severity * _EARLY_SIGMA_PX)
    mean = blurred.mean(dim=(2, 3), keepdim=True)
    stains = _smooth_noise(tuple(images.shape), _STAIN_SIGMA_PX, generator)
    return mean + (blurred - mean) * (1.0 - _EARLY_SHRINK * strength) + _STAIN_STD * strength * stains


def _warp(images: Images, severity: Severity, _: Images, generator: torch.Generator) -> Images:
    count, _channels, height, width = images.shape
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    shift = _smooth_noise((count, 2, height, width), _WARP_SIGMA_PX, generator) * _column(severity)
    grid = torch.stack((xs, ys), dim=-1) + shift.permute(0, 2, 3, 1) * (2.0 * _WARP_PX / width)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)


def _occlusion(images: Images, severity: Severity, _: Images, generator: torch.Generator) -> Images:
    count, _channels, height, width = images.shape
    side = _OCCLUDED_SIDE * severity
    corner = torch.rand((count, 2), generator=generator) * (1.0 - side[:, None])
    ys = (torch.arange(height) / height)[None, :, None]
    xs = (torch.arange(width) / width)[None, None, :]
    top, left = corner[:, :1, None], corner[:, 1:, None]
    edge = side[:, None, None]
    covered = (ys >= top) & (ys < top + edge) & (xs >= left) & (xs < left + edge)
    colour = torch.rand((count, 3, 1, 1), generator=generator) * 2.0 - 1.0
    return torch.where(covered[:, None], colour, images)


def _ghost(images: Images, severity: Severity, neighbours: Images, generator: torch.Generator) -> Images:
    del generator
    return images + _GHOST_ALPHA * _column(severity) * (neighbours - images)


_SPOILERS: Final[dict[Corruption, Callable[[Images, Severity, Images, torch.Generator], Images]]] = {
    Corruption.BLUR: _blur,
    Corruption.NOISE: _noise,
    Corruption.EARLY: _early,
    Corruption.WARP: _warp,
    Corruption.OCCLUSION: _occlusion,
    Corruption.GHOST: _ghost,
}
