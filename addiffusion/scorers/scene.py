"""Scene adapter: the exact checker of the embedded world as a metric. It judges; it is never part of a reward."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from addiffusion.embedded.captions import Requirement, parse_caption
from addiffusion.embedded.checker import check

_cached_requirement = lru_cache(maxsize=4096)(parse_caption)


class SceneScorer:
    """Soft and strict scene score of single images."""

    def requirement(self, prompt: str) -> Requirement:
        """What the prompt demands.

        Raises:
            PromptError: the prompt is outside the caption grammar.
        """
        return _cached_requirement(prompt)

    def score(self, image: UInt8[np.ndarray, "h w 3"], requirement: Requirement) -> dict[str, float]:
        """``scene_soft`` in [0, 1] and ``scene_strict``, 0 or 1."""
        report = check(image, requirement)
        return {"scene_soft": report.soft, "scene_strict": float(report.strict)}
