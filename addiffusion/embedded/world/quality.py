"""How good images are, by the exact scene checker: the yardstick of autoencoder and diffusion training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import UInt8

from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneQuality:
    """Checker results of some images."""

    soft: float
    """Mean soft score, 0 to 1."""
    strict: float
    """Share of images that pass in everything."""


def scene_quality(images: UInt8[np.ndarray, "n 64 64 3"], captions: Sequence[str]) -> SceneQuality:
    """Checks each image against its caption."""
    reports = [check(image, parse_caption(caption)) for image, caption in zip(images, captions, strict=True)]
    return SceneQuality(
        soft=fmean(report.soft for report in reports), strict=fmean(report.strict for report in reports)
    )
