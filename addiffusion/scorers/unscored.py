"""Scoring where nobody asks what an image is worth: no model is loaded, every score is NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from addiffusion.records import METRIC_NAMES, SCORE_NAMES, ScoreReply, ScoreRequest


class Unscored:
    """Implements ``addiffusion.scorers.base.Scoring``. For policies that do not look at images, and none at all."""

    names = (*SCORE_NAMES, *METRIC_NAMES)
    clip_width = 0
    dino_width = 0

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 0)."""
        return np.zeros((len(prompts), 0), np.float32)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """NaN for every score, without an error: none was asked for."""
        count = len(request.prompts)
        return ScoreReply(
            names=request.names,
            values=np.full((count, len(request.names)), np.nan, np.float32),
            clip_embedding=np.zeros((count, 0), np.float32),
            dino_embedding=np.zeros((count, 0), np.float32),
            errors=(None,) * count,
        )
