"""Under `scorers.on_score_error=stop` a missing score is nobody's episode but the run's end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from addiffusion.errors import RolloutError, ScorerError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import StrictScoring
from tests.fakes import UNSCORABLE, ToyScoring

IMAGES = np.zeros((2, 16, 16, 3), np.uint8)


class SilentScoring(ToyScoring):
    """A service nobody answers for."""

    def score(self, request: ScoreRequest) -> ScoreReply:
        raise ScorerError("Nobody answers.")

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        raise ScorerError("Nobody answers.")


def test_scores_pass_through() -> None:
    request = ScoreRequest(images=IMAGES, prompts=("a", "b"))
    strict, plain = StrictScoring(ToyScoring()), ToyScoring()
    np.testing.assert_array_equal(strict.score(request).values, plain.score(request).values)
    np.testing.assert_array_equal(strict.embed_text(("a",)), plain.embed_text(("a",)))
    assert (strict.names, strict.clip_width, strict.dino_width) == (plain.names, plain.clip_width, plain.dino_width)


def test_a_missing_score_names_its_prompt_and_the_way_out() -> None:
    prompt = f"an {UNSCORABLE} one"
    with pytest.raises(RolloutError, match=rf"{prompt}.*scorers\.on_score_error=stop ends the run then; with mask"):
        StrictScoring(ToyScoring()).score(ScoreRequest(images=IMAGES, prompts=("a", prompt)))


def test_no_answer_at_all_ends_the_run_too() -> None:
    strict = StrictScoring(SilentScoring())
    for ask in (
        lambda: strict.score(ScoreRequest(images=IMAGES, prompts=("a", "b"))),
        lambda: strict.embed_text(("a",)),
    ):
        with pytest.raises(RolloutError, match="Nobody answers"):
            ask()
