from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.embedded.world.captions import (
    NUMBERS,
    SAID_SIZES,
    RequiredGroup,
    Requirement,
    parse_caption,
    vocabulary,
    write_caption,
)
from addiffusion.embedded.world.scenes import TIERS, Group, Scene, sample_scene
from addiffusion.errors import PromptError

seeds = st.integers(0, 2**32)


def _scene(*groups: Group, relation: str | None = None) -> Scene:
    return Scene(
        tier=2,
        groups=groups,
        relation=relation,
        position=None,
        placements=(),
        texture="striped",
        background="gray",
        axis=0,
        phase=0.0,
    )


@given(seeds, st.sampled_from(TIERS), st.sampled_from(("random", "full", "minimal")))
@settings(max_examples=300, deadline=None)
def test_a_caption_parses_back_to_what_its_scene_shows(seed: int, tier: int, detail: str) -> None:
    rng = random.Random(seed)
    scene = sample_scene(rng, tier)
    caption = write_caption(scene, rng, detail)
    required = parse_caption(caption)
    assert len(caption.split()) <= 22
    assert set(caption.split()) <= set(vocabulary())
    assert (required.relation, required.position) == (scene.relation, scene.position)
    assert (required.texture, required.background) in {(None, None), (scene.texture, scene.background)}
    for said, group in zip(required.groups, scene.groups, strict=True):
        assert (said.count, said.color, said.shape) == (group.count, group.color, group.shape)
        assert said.size in (None, group.size)
        if detail == "full":
            assert said.size == (group.size if group.size in SAID_SIZES else None)
    if detail == "full":
        assert required.background == scene.background


def test_a_full_caption_reads_as_expected() -> None:
    scene = _scene(
        Group(count=1, size="medium", color="orange", shape="star"),
        Group(count=2, size="small", color="red", shape="ring"),
        relation="left of",
    )
    caption = write_caption(scene, random.Random(0), "full")
    assert caption == "an orange star left of two small red rings on a striped gray background"


def test_a_minimal_caption_leaves_size_and_background_out() -> None:
    rng = random.Random(0)
    for _ in range(50):
        required = parse_caption(write_caption(sample_scene(rng, 1), rng, "minimal"))
        assert required.background is None
        assert required.groups[0].size is None


def test_a_caption_may_ask_for_what_no_scene_has() -> None:
    group = RequiredGroup(count=4, size="large", color="blue", shape="circle")
    assert parse_caption("four large blue circles in the top left on a plain white background") == Requirement(
        groups=(group,), relation=None, position="top left", texture="plain", background="white"
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "its end"),
        ("a photo of a cat", "photo"),
        ("a red", "its end"),
        ("a red circles", "circles"),
        ("two red circle", "circle"),
        ("a red circle beside a blue square", "beside"),
        ("a red circle left of a blue square above a green star", "above"),
        ("a red circle on a striped background", "background"),
        ("a red circle on a white", "its end"),
        ("a red circle in the middle", "middle"),
    ],
)
def test_text_outside_the_grammar_names_the_word(text: str, word: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_caption(text)
    assert caught.value.facts["word"] == word
    assert word in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "a red circle above a red circle",
        "a red circle above a blue circle above a green circle above a yellow circle",
    ],
)
def test_requirements_that_cannot_be_checked_are_refused(text: str) -> None:
    with pytest.raises(PromptError, match="prompt"):
        parse_caption(text)


def test_the_vocabulary_is_sorted_and_complete() -> None:
    words = vocabulary()
    assert list(words) == sorted(set(words))
    assert {*NUMBERS.values(), "an", "background", "stars", "center"} <= set(words)
