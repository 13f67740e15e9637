"""A contradiction says one thing differently, stays in the grammar, and is false of the caption's own image."""

from __future__ import annotations

import contextlib
import random

import pytest

from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check
from addiffusion.embedded.world.contradictions import contradict
from addiffusion.embedded.world.data import scene_batch
from addiffusion.errors import PromptError


def test_contradictions_fail_the_exact_checker() -> None:
    scenes = scene_batch(3, 0, 120)
    rng = random.Random(0)
    judged = passed = 0
    for image, caption in zip(scenes.images, scenes.captions, strict=True):
        false = contradict(caption, rng)
        assert false != caption
        with contextlib.suppress(PromptError):  # a recoloured group may now be named twice
            requirement = parse_caption(false)
            judged += 1
            passed += check(image, requirement).strict
    assert judged > 100
    assert passed == 0, f"{passed} of {judged} contradictions are true of their image"


def test_every_kind_of_fact_is_changed() -> None:
    rng = random.Random(1)
    caption = "two small red rings left of an orange star on a striped gray background"
    changed = {contradict(caption, rng) for _ in range(300)}
    for expected in (
        "three small red rings left of an orange star on a striped gray background",
        "two large red rings left of an orange star on a striped gray background",
        "two small red rings right of an orange star on a striped gray background",
        "two small orange rings left of a red star on a striped gray background",
        "two small red rings left of an orange star on a striped white background",
    ):
        assert expected in changed
    assert any("small red stars" in text for text in changed)
    assert any("small blue rings" in text for text in changed)


def test_a_repeated_relation_is_turned_everywhere() -> None:
    rng = random.Random(2)
    caption = "a red ring above a blue star above a green circle"
    turned = [text for text in (contradict(caption, rng) for _ in range(200)) if "below" in text]
    assert turned
    assert set(turned) == {"a red ring below a blue star below a green circle"}


@pytest.mark.parametrize("place", ["top left", "bottom right"])
def test_a_place_is_moved(place: str) -> None:
    rng = random.Random(3)
    changed = {contradict(f"a red ring in the {place}", rng) for _ in range(100)}
    moved = {text for text in changed if text.startswith("a red ring in the")}
    assert moved == {"a red ring in the bottom left", "a red ring in the top right"}


def test_text_without_an_object_is_refused() -> None:
    with pytest.raises(PromptError, match="a unicorn"):
        contradict("a unicorn", random.Random(0))
