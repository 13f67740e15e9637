"""Scoring for runs that want no episode without its scores: `scorers.on_score_error=stop`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import RolloutError, ScorerError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.wrapped import WrappedScoring


class StrictScoring(WrappedScoring):
    """Any ``Scoring``; an image that has no score ends the run instead of its own episode."""

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """See ``Scoring.embed_text``.

        Raises:
            RolloutError: the scorers gave no answer.
        """
        try:
            return self._scoring.embed_text(prompts)
        except ScorerError as error:
            raise _stopped(error.message) from error

    def score(self, request: ScoreRequest) -> ScoreReply:
        """See ``Scoring.score``.

        Raises:
            RolloutError: an image has no score, or the scorers gave no answer.
        """
        try:
            reply = self._scoring.score(request)
        except ScorerError as error:
            raise _stopped(error.message) from error
        for prompt, error in zip(request.prompts, reply.errors, strict=True):
            if error is not None:
                raise _stopped(f"prompt {prompt!r}: {error}")
        return reply


def _stopped(reason: str) -> RolloutError:
    return RolloutError(
        f"An image has no score ({reason}), and scorers.on_score_error=stop ends the run then; with mask its episode "
        "is dropped, counted and handed out again.",
        reason=reason,
    )
