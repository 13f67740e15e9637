from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from addiffusion.actions import Action
from addiffusion.config import ObservationSection, Scales
from addiffusion.observation.clip import ImageScores
from addiffusion.observation.layout import latent_layout
from addiffusion.observation.preview_scores import PreviewScores, permitted
from addiffusion.sampling.slot import SlotInfo
from tests.addiffusion.observation.slot_info import INFO

SECTION = ObservationSection(kind="latent", previews=(0.2, 0.5))
NO_SCORES = np.zeros(0, np.float32)


@dataclass
class Episode:
    begins: bool = False
    refined: bool = False


def _at(step: int) -> SlotInfo:
    return replace(INFO, step=step, num_steps=10)


def _judged(clip: float, aesthetic: float = 5.5, image_reward: float = 0.2) -> ImageScores:
    scores = np.array([clip, aesthetic, image_reward, 0], np.float32)
    return ImageScores(scores=scores, clip_embedding=NO_SCORES, dino_embedding=NO_SCORES)


def _due(scores: PreviewScores, steps: list[int], episode: Episode | None = None) -> list[int]:
    """Those of the steps of some decisions where a preview is due."""
    found: list[int] = []
    for step in steps:
        info, now = _at(step), episode or Episode()
        if scores.is_due(0, info, now):
            found.append(step)
        scores.note(0, info, now, _judged(0.3) if step in found else None)
    return found


def test_a_preview_is_due_once_at_each_point_at_the_first_decision_that_is_there() -> None:
    assert _due(PreviewScores(SECTION, Scales()), list(range(1, 10))) == [2, 5]
    assert _due(PreviewScores(SECTION, Scales()), [1, 3, 4, 8, 9]) == [3, 8]
    assert _due(PreviewScores(SECTION, Scales()), [7, 8]) == [7], "two points at once are one preview"


def test_a_refine_is_seen_again_but_not_before_the_first_point() -> None:
    scores = PreviewScores(SECTION, Scales())
    assert _due(scores, [1], Episode(refined=True)) == []
    assert _due(scores, [2]) == [2]
    assert _due(scores, [3], Episode(refined=True)) == [3]
    assert _due(scores, [4]) == []


def test_another_latent_is_another_image() -> None:
    scores = PreviewScores(SECTION, Scales())
    assert _due(scores, [2, 5]) == [2, 5]
    assert _due(scores, [1], Episode(begins=True)) == []
    assert scores.row(0, _at(1)) == (0.0,) * 5, "nothing was seen of it"
    assert _due(scores, [2]) == [2]


def test_scores_are_told_in_units_above_the_usual_and_with_their_age() -> None:
    scores = PreviewScores(SECTION, Scales(clip=0.05, aesthetic=0.5, image_reward=0.1))
    scores.note(0, _at(2), Episode(), _judged(0.31, 5.0, -9.0))
    assert scores.row(0, _at(4)) == pytest.approx((1.0, 1.0, -1.0, -5.0, 0.2), abs=1e-5)
    assert scores.row(1, _at(4)) == (0.0,) * 5


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True), st.lists(st.integers(0, 9), max_size=9))
def test_no_image_is_scored_more_often_than_there_are_points(points: list[float], steps: list[int]) -> None:
    section = ObservationSection(kind="latent", previews=tuple(sorted(points)))
    seen = _due(PreviewScores(section, Scales()), sorted(steps))
    assert len(seen) <= len(points)
    assert all(step / 10 >= min(points) - 1e-9 for step in seen)


def test_the_slice_lies_before_progress() -> None:
    plain, looking = (
        latent_layout(middle_width=3, text_width=2, timestep_width=4, previews=on) for on in (False, True)
    )
    assert str(looking) == "middle 3 | text 2 | timestep 4 | convergence 4 | preview 5 | progress 4 = 22"
    assert looking.price_column - looking.width == plain.price_column - plain.width


def test_only_redraw_is_left_out() -> None:
    allowed = permitted((True,) * len(Action), seen=False)
    assert [Action(place) for place, can in enumerate(allowed) if not can] == [Action.REDRAW]
    assert all(permitted((True,) * len(Action), seen=True))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"kind": "clip", "previews": (0.2,)}, "observation.kind=clip scores a preview at every step"),
        ({"kind": "latent", "previews": (0.5, 0.2)}, r"previews must rise, but are \[0.5, 0.2\]"),
        ({"kind": "latent", "previews": (1.0,)}, "less than 1"),
    ],
)
def test_previews_that_can_not_be_are_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ObservationSection.model_validate(wrong)
