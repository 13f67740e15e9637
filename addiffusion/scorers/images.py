"""The images of one scorer pass and the inputs made of them: on the device, each view computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)
from torchvision.transforms.v2 import InterpolationMode  # pyright: ignore[reportMissingTypeStubs] - it has none
from torchvision.transforms.v2.functional import center_crop, resize  # pyright: ignore[reportMissingTypeStubs] - it has none

from addiffusion.torch_typed import from_numpy

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Pixel statistics of CLIP, which ImageReward, HPS and PickScore share."""


class ImageBatch:
    """uint8 images (n, 3, h, w) on a device, with a cache of what scorers derive from them."""

    def __init__(self, pixels: UInt8[Tensor, "n 3 h w"]) -> None:
        self.pixels = pixels
        self._known: dict[Hashable, Tensor] = {}

    @classmethod
    def of(cls, images: UInt8[np.ndarray, "n h w 3"], device: torch.device) -> ImageBatch:
        """Images on ``device``. Memory stays channels last, in which convolutions are faster."""
        writable = np.require(images, requirements=("C", "W"))  # torch warns of arrays it might write to by mistake
        return cls(from_numpy(writable).permute(0, 3, 1, 2).to(device))

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The result of ``compute``, computed at the first call for ``key``; read-only."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The steps from pixels to a model's input. Equal steps of different models are shared."""

    size: int
    """Pixels per side of the input."""
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    """`shortest`: shorter side to ``resize_to``, centre crop; `longest`: longer side to ``size``, zero padding;
    `squash`: both sides to ``size``, whatever the proportions."""
    resize_to: int | None = None
    """`shortest`: pixels of the shorter side before the crop; None is ``size``."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    def __call__(self, images: ImageBatch) -> Float[Tensor, "n 3 size size"]:
        """Normalised float32 input."""
        unnormalised = replace(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        resized = images.once(("resized", unnormalised), lambda: self._resized(images.pixels))
        return images.once(self, lambda: self._normalised(resized))

    def _resized(self, pixels: UInt8[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n 3 size size"]:
        """Resized as uint8, as PIL does it: in float, bicubic overshoot would not be clipped at white and black."""
        height, width = pixels.shape[-2:]
        mode = InterpolationMode(self.interpolation)
        if self.resize_mode == "squash":
            return resize(pixels, [self.size, self.size], mode, antialias=True)
        if self.resize_mode == "longest":
            ratio = max(height, width) / self.size
            fitted = resize(pixels, [round(height / ratio), round(width / ratio)], mode, antialias=True)
            return _padded(fitted, self.size)
        shorter = resize(pixels, [self.resize_to or self.size], mode, antialias=True)
        return center_crop(shorter, [self.size, self.size])

    def _normalised(self, resized: UInt8[Tensor, "n 3 size size"]) -> Float[Tensor, "n 3 size size"]:
        mean, std = (torch.tensor(values, device=resized.device)[:, None, None] for values in (self.mean, self.std))
        return (resized.to(torch.float32) / 255 - mean) / std


def _padded(pixels: UInt8[Tensor, "n 3 h w"], size: int) -> UInt8[Tensor, "n 3 size size"]:
    """Black borders around the centre; an odd rest goes to the right and the bottom."""
    rest = [size - pixels.shape[-1], size - pixels.shape[-2]]
    left, top = rest[0] // 2, rest[1] // 2
    return F.pad(pixels, (left, rest[0] - left, top, rest[1] - top))
