from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from addiffusion.embedded.world.render import render
from addiffusion.embedded.world.scenes import BACKGROUNDS, TEXTURES, TIERS, Scene, sample_scene
from addiffusion.embedded.world.segmentation import MAX_OBJECTS, segment


@pytest.mark.parametrize("tier", TIERS)
def test_every_object_is_found_where_it_was_drawn(tier: int) -> None:
    rng = random.Random(tier)
    scenes = [sample_scene(rng, tier) for _ in range(40)]
    for scene, image in zip(scenes, render(scenes, rng), strict=True):
        seen = segment(image).objects
        assert len(seen) == len(scene.placements)
        for placement in scene.placements:
            group = scene.groups[placement.group]
            nearest = min(seen, key=lambda item: np.hypot(item.x - placement.x, item.y - placement.y))
            assert (nearest.color, nearest.shape) == (group.color, group.shape)
            assert abs(nearest.x - placement.x) < 0.5
            assert abs(nearest.y - placement.y) < 0.5
            assert abs(nearest.radius - placement.radius) < 0.4
            assert nearest.fit > 0.88


def _background(texture: str, background: str, axis: int, phase: float) -> Scene:
    scene = sample_scene(random.Random(0), 3)
    return replace(scene, texture=texture, background=background, axis=axis, phase=phase)


@pytest.mark.parametrize("texture", TEXTURES)
def test_backgrounds_are_told_apart_behind_objects(texture: str) -> None:
    rng = random.Random(1)
    for background in BACKGROUNDS:
        scenes = [_background(texture, background, axis, phase) for axis in (0, 1) for phase in (0.1, 0.8)]
        for image in render(scenes, rng):
            seen = segment(image).background
            assert (seen.name, seen.texture) == (background, texture)
            assert seen.share > 0.95


def test_noise_costs_no_more_than_the_largest_patches() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert len(segment(image).objects) <= MAX_OBJECTS


def test_an_image_of_one_color_has_no_objects_unless_it_is_an_object_color() -> None:
    assert segment(np.full((64, 64, 3), 240, np.uint8)).objects == ()
    red = segment(np.full((64, 64, 3), (222, 40, 40), np.uint8))
    assert [item.color for item in red.objects] == ["red"]
