from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from addiffusion.embedded.world.render import BACKGROUND_JITTER, IMAGE_SIZE, OBJECT_JITTER, render, texture_weight
from addiffusion.embedded.world.scenes import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    TEXTURES,
    Group,
    Placement,
    Scene,
    sample_scene,
)


def _scene(shape: str = "circle", texture: str = "plain", radius: float = 12.0) -> Scene:
    return Scene(
        tier=1,
        groups=(Group(count=1, size="large", color="red", shape=shape),),
        relation=None,
        position=None,
        placements=(Placement(group=0, x=30.0, y=34.0, radius=radius),),
        texture=texture,
        background="blue",
        axis=0,
        phase=0.1,
    )


def test_images_have_the_promised_shape_and_repeat_by_seed() -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in range(8)]
    images = render(scenes, random.Random(1))
    assert images.shape == (8, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, render(scenes, random.Random(1)))
    np.testing.assert_array_equal(images[:3], render(scenes[:3], random.Random(1)))
    assert render([], random.Random(1)).shape == (0, IMAGE_SIZE, IMAGE_SIZE, 3)


def test_colors_are_those_of_their_names() -> None:
    images = render([_scene()] * 200, random.Random(2)).astype(float)
    inside, outside = images[:, 34, 30], images[:, 5, 5]
    np.testing.assert_allclose(inside.mean(axis=0), COLORS["red"], atol=2.5)
    np.testing.assert_allclose(outside.mean(axis=0), BACKGROUNDS["blue"], atol=1)
    np.testing.assert_allclose(inside.std(axis=0), OBJECT_JITTER, rtol=0.25)
    np.testing.assert_allclose(outside.std(axis=0), BACKGROUND_JITTER, rtol=0.25)


@pytest.mark.parametrize(
    ("shape", "area"), [("circle", 3.142), ("square", 2.958), ("triangle", 1.641), ("star", 1.460), ("ring", 2.418)]
)
def test_shapes_cover_their_area(shape: str, area: float) -> None:
    image = render([_scene(shape)], random.Random(3))[0].astype(float)
    red = (image - image[5, 5])[..., 0]
    drawn = red.sum() / red.max()
    assert abs(drawn / (area * 12.0**2) - 1) < 0.02, f"{shape} covers {drawn:.1f} pixels"


def test_a_ring_has_a_hole_and_other_shapes_do_not() -> None:
    for shape in SHAPES:
        center = render([_scene(shape)], random.Random(4))[0, 34, 30].astype(int)
        assert (center[0] < 60) == (shape == "ring")


@pytest.mark.parametrize("texture", TEXTURES)
def test_texture_weights_are_shares(texture: str) -> None:
    for axis in (0, 1):
        weight = texture_weight(texture, axis, 0.3)
        assert weight.shape == (IMAGE_SIZE, IMAGE_SIZE)
        assert 0 <= weight.min() <= weight.max() <= 1
        assert (weight.std() > 0.2) == (texture != "plain")


def test_the_axis_turns_a_texture() -> None:
    for texture in TEXTURES:
        scene = replace(_scene(texture=texture), placements=())
        turned = replace(scene, axis=1)
        along, across = render([scene], random.Random(5))[0], render([turned], random.Random(5))[0]
        np.testing.assert_array_equal(along.transpose(1, 0, 2), across)
