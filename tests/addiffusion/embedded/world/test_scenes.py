from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.embedded.world.render import distance
from addiffusion.embedded.world.scenes import (
    BACKGROUNDS,
    COLORS,
    IMAGE_SIZE,
    OUTLINES,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    TIER_WEIGHTS,
    TIERS,
    Placement,
    Scene,
    sample_scene,
)

scenes = st.builds(
    lambda seed, tier: sample_scene(random.Random(seed), tier), st.integers(0, 2**32), st.sampled_from(TIERS)
)


def _members(scene: Scene, group: int) -> list[Placement]:
    return [placement for placement in scene.placements if placement.group == group]


@given(scenes)
@settings(max_examples=150, deadline=None)
def test_a_scene_is_made_of_known_words_and_sizes(scene: Scene) -> None:
    assert scene.background in BACKGROUNDS
    assert scene.texture in TEXTURES
    assert scene.position is None or scene.position in POSITIONS
    assert (scene.relation in RELATIONS) == (len(scene.groups) > 1)
    assert len({(group.color, group.shape) for group in scene.groups}) == len(scene.groups)
    for index, group in enumerate(scene.groups):
        assert group.color in COLORS
        assert group.shape in SHAPES
        members = _members(scene, index)
        assert len(members) == group.count
        low, high = SIZES[group.size]
        assert all(low <= member.radius <= high for member in members)


@given(scenes)
@settings(max_examples=150, deadline=None)
def test_objects_lie_in_the_image_and_relations_hold(scene: Scene) -> None:
    for placement in scene.placements:
        assert placement.radius < placement.x < IMAGE_SIZE - placement.radius
        assert placement.radius < placement.y < IMAGE_SIZE - placement.radius
    for index in range(len(scene.groups) - 1):
        for one in _members(scene, index):
            for two in _members(scene, index + 1):
                shift = {
                    "left of": two.x - one.x,
                    "right of": one.x - two.x,
                    "above": two.y - one.y,
                    "below": one.y - two.y,
                }[scene.relation or ""]
                assert shift > one.radius + two.radius


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_drawn_objects_never_touch(scene: Scene) -> None:
    axis = np.arange(0, IMAGE_SIZE, 0.25)
    x, y = axis[None, :], axis[:, None]
    fields = [
        distance(scene.groups[item.group].shape, x - item.x, y - item.y, item.radius) for item in scene.placements
    ]
    for index, one in enumerate(fields):
        for two in fields[:index]:
            assert np.maximum(one, two).min() > 0.3


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_match_the_distance_fields(shape: str) -> None:
    axis = (np.arange(1200) + 0.5) / 400 - 1.5
    filled = distance(shape, axis[None, :], axis[:, None], 1.0) < 0
    rows, columns = np.nonzero(filled)
    outline = OUTLINES[shape]
    assert abs(axis[columns].max() - outline.half_width) < 0.01
    assert abs(-axis[rows].min() - outline.top) < 0.01
    assert abs(axis[rows].max() - outline.bottom) < 0.01
    assert abs(np.hypot(axis[columns], axis[rows]).max() - outline.reach) < 0.01


def test_scenes_are_a_function_of_the_seed() -> None:
    first, second = random.Random(3), random.Random(3)
    assert [sample_scene(first) for _ in range(50)] == [sample_scene(second) for _ in range(50)]
    assert sample_scene(random.Random(4)) != sample_scene(random.Random(5))


def test_tiers_come_in_their_shares_and_get_harder() -> None:
    rng = random.Random(0)
    sample = [sample_scene(rng) for _ in range(1500)]
    shares = Counter(scene.tier for scene in sample)
    for tier, weight in zip(TIERS, TIER_WEIGHTS, strict=True):
        assert abs(shares[tier] / len(sample) - weight) < 4 * math.sqrt(weight / len(sample))
    objects = {tier: {len(scene.placements) for scene in sample if scene.tier == tier} for tier in TIERS}
    assert objects == {1: {1}, 2: {1, 2, 3}, 3: {3, 4, 5}}
