"""The server's scoring: the suite's own scores, in passes no larger than needed."""

from __future__ import annotations

import numpy as np

from addiffusion.config import ScorersSection
from addiffusion.records import ScoreRequest
from addiffusion.scorers.factory import load_suite
from serving.sized_scoring import SizedScoring


def test_scores_are_the_suites_to_rounding_and_passes_as_large_as_needed() -> None:
    suite = load_suite(ScorersSection(device="cpu", batch_images=6))
    sized = SizedScoring(suite, most=6)
    images = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    for count in (1, 2, 3, 6):
        request = ScoreRequest(images=images[:count], prompts=("a red circle",) * count)
        assert np.abs(sized.score(request).values - suite.score(request).values).max() < 1e-3
    assert list(sized._suites) == [1, 2, 4, 6]
    assert sized.embed_text(["a red circle"]).shape == (1, sized.clip_width)
