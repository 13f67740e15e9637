"""Scoring in passes of as many rows as a request needs: one image alone is soon scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import WrappedScoring
from addiffusion.scorers.suite import ScorerSuite


class SizedScoring(WrappedScoring):
    """A suite at several batch shapes, powers of two; its scores differ by rounding with the size of a request."""

    def __init__(self, suite: ScorerSuite, *, most: int) -> None:
        """A suite whose models are shared by all shapes.

        Args:
            suite: the models.
            most: images of the largest pass.
        """
        super().__init__(suite)
        sizes = [2**power for power in range((most - 1).bit_length())]
        self._suites = {size: suite.with_batch_images(size) for size in (*sizes, most)}

    def embed_text(self, prompts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
        """See ``Scoring.embed_text``."""
        return self._scoring.embed_text(prompts)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """See ``Scoring.score``."""
        fitting = (size for size in self._suites if size >= len(request.images))
        return self._suites[next(fitting, max(self._suites))].score(request)
