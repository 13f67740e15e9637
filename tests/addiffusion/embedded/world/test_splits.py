"""One hash decides which split owns a scene, whatever way it is said."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.embedded.world.captions import write_caption
from addiffusion.embedded.world.scenes import COLORS, SHAPES, TIERS, Scene, sample_scene
from addiffusion.embedded.world.splits import HELD_OUT_PAIRS, split_of, split_of_scene
from addiffusion.errors import PromptError


def scenes_of(seed: int, count: int, tier: int | None = None) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, tier) for _ in range(count)]


@given(seed=st.integers(0, 2**32), tier=st.sampled_from(TIERS), detail=st.sampled_from(["random", "full", "minimal"]))
@settings(max_examples=60, deadline=None)
def test_every_caption_of_a_scene_belongs_to_the_split_of_the_scene(seed: int, tier: int, detail: str) -> None:
    rng = random.Random(seed)
    scene = sample_scene(rng, tier)
    assert split_of(write_caption(scene, rng, detail)) == split_of_scene(scene)  # pyright: ignore[reportArgumentType]


def test_the_same_picture_said_differently_stays_in_its_split() -> None:
    pairs = [
        ("a red circle left of a blue star", "a blue star right of a small red circle on a white background"),
        ("two green rings above a red star", "a large red star below two green rings"),
        ("a red triangle", "a small red triangle in the top left on a striped gray background"),
    ]
    for one, two in pairs:
        assert split_of(one) == split_of(two)


def test_single_objects_are_shared_fairly() -> None:
    owners = {(color, shape): split_of(f"a {color} {shape}") for color in COLORS for shape in SHAPES}
    assert Counter(owners.values()) == {"train": 15, "validation": 6, "test": 6, "compositional": 3}
    for split in ("train", "test"):
        owned = [pair for pair, owner in owners.items() if owner == split]
        assert {color for color, _ in owned} == set(COLORS)
        assert {shape for _, shape in owned} == set(SHAPES)


def test_held_out_pairs_share_no_color_and_no_shape() -> None:
    colors, shapes = zip(*HELD_OUT_PAIRS, strict=True)
    assert len(HELD_OUT_PAIRS) == len(set(colors)) == len(set(shapes)) == 3


def test_a_held_out_pair_makes_a_scene_compositional_and_nothing_else_does() -> None:
    for scene in scenes_of(0, 500):
        shown = {(group.color, group.shape) for group in scene.groups}
        assert (split_of_scene(scene) == "compositional") == bool(shown & HELD_OUT_PAIRS)


def test_shares_of_crowded_scenes() -> None:
    owners = Counter(split_of_scene(scene) for scene in scenes_of(1, 4000, tier=3))
    ordinary = {split: count for split, count in owners.items() if split != "compositional"}
    total = sum(ordinary.values())
    assert ordinary["train"] / total == pytest.approx(0.6, abs=0.03)
    assert ordinary["validation"] / total == pytest.approx(0.2, abs=0.03)
    assert owners["compositional"] / 4000 == pytest.approx(0.25, abs=0.05)


def test_a_sentence_outside_the_grammar_has_no_split() -> None:
    with pytest.raises(PromptError, match="unicorn"):
        split_of("a red unicorn")
