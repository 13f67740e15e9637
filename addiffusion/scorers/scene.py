"""The exact checker of the embedded world as a metric. It judges; it is never part of a reward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.images import ImageBatch

_cached_requirement = lru_cache(maxsize=4096)(parse_caption)


class SceneScorer:
    """One reading of the checker's report. Both readings of an image share one check."""

    def __init__(self, spec: ScorerSpec) -> None:
        self.spec = spec

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """In [0, 1].

        Raises:
            PromptError: a prompt is outside the caption grammar.
        """
        reports = images.once(("scene", tuple(prompts)), lambda: _check(images, prompts))
        return reports[:, _READINGS.index(self.spec.name)]


_READINGS = ("scene_soft", "scene_strict")


def scene_scorers() -> tuple[SceneScorer, SceneScorer]:
    """``scene_soft``, the share of a caption's demands that is met, and ``scene_strict``: 1 if all are, else 0."""
    soft, strict = (
        ScorerSpec(name=name, unit=unit, low=0.0, high=1.0, batched=False)
        for name, unit in zip(_READINGS, ("share of demands met", "1 if all demands are met"), strict=True)
    )
    return SceneScorer(soft), SceneScorer(strict)


def _check(images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, "n 2"]:
    pixels = images.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    reports = [check(image, _cached_requirement(prompt)) for image, prompt in zip(pixels, prompts, strict=True)]
    return torch.tensor([[report.soft, float(report.strict)] for report in reports])
