from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from addiffusion.embedded.world.captions import Requirement, parse_caption, write_caption
from addiffusion.embedded.world.checker import SceneReport, check
from addiffusion.embedded.world.render import render
from addiffusion.embedded.world.scenes import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    SIZES,
    TEXTURES,
    TIERS,
    Group,
    Placement,
    Scene,
    sample_scene,
)

COUNT = 300


def _sample(tier: int, count: int = COUNT) -> tuple[list[Scene], list[Requirement]]:
    rng = random.Random(1000 + tier)
    scenes = [sample_scene(rng, tier) for _ in range(count)]
    return scenes, [parse_caption(write_caption(scene, rng, "full")) for scene in scenes]


def _strict(images: NDArray[np.uint8], required: list[Requirement]) -> float:
    return float(np.mean([check(image, one).strict for image, one in zip(images, required, strict=True)]))


@pytest.mark.parametrize("tier", TIERS)
def test_clean_renders_pass_and_mismatched_captions_score_low(tier: int) -> None:
    scenes, required = _sample(tier)
    images = render(scenes, random.Random(tier))
    strict = _strict(images, required)
    assert strict >= 0.99, f"strict pass of clean tier {tier} renders is {strict:.3f}"
    shifted = [check(image, one) for image, one in zip(images, required[1:] + required[:1], strict=True)]
    soft = float(np.mean([report.soft for report in shifted]))
    assert soft <= 0.4, f"soft score of mismatched tier {tier} captions is {soft:.3f}"
    assert not any(report.strict for report in shifted)


@pytest.mark.parametrize("tier", TIERS)
def test_soft_edges_and_noise_are_tolerated(tier: int) -> None:
    scenes, required = _sample(tier, 60)
    images = render(scenes, random.Random(tier))
    blurred = ndimage.gaussian_filter(images, (0, 0.9, 0.9, 0))
    noise = np.random.default_rng(tier).normal(0, 8, images.shape)
    noisy = (images + noise).clip(0, 255).astype(np.uint8)
    assert _strict(blurred, required) >= 0.95
    assert _strict(noisy, required) >= 0.95


def _other(rng: random.Random, values: list[str], now: str) -> str:
    return rng.choice([value for value in values if value != now])


def _regroup(scene: Scene, index: int, group: Group) -> Scene:
    return replace(scene, groups=(*scene.groups[:index], group, *scene.groups[index + 1 :]))


def _wrong_color(scene: Scene, rng: random.Random) -> Scene | None:
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    return _regroup(scene, index, replace(group, color=_other(rng, list(COLORS), group.color)))


def _wrong_shape(scene: Scene, rng: random.Random) -> Scene | None:
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    return _regroup(scene, index, replace(group, shape=_other(rng, list(SHAPES), group.shape)))


def _one_missing(scene: Scene, rng: random.Random) -> Scene | None:
    gone = rng.randrange(len(scene.placements))
    return replace(scene, placements=scene.placements[:gone] + scene.placements[gone + 1 :])


def _one_more(scene: Scene, rng: random.Random) -> Scene | None:
    """One more object of a group, where it touches nothing."""
    for _ in range(100):
        new = Placement(group=rng.randrange(len(scene.groups)), x=rng.uniform(8, 56), y=rng.uniform(8, 56), radius=6.5)
        away = [np.hypot(new.x - old.x, new.y - old.y) - 1.22 * old.radius for old in scene.placements]
        if min(away) > 1.22 * new.radius + 2:
            return replace(scene, placements=(*scene.placements, new))
    return None


def _wrong_size(scene: Scene, rng: random.Random) -> Scene | None:
    """Small becomes medium or large becomes small, so that nothing grows into its neighbour much."""
    said = [index for index, group in enumerate(scene.groups) if group.size != "medium"]
    if not said:
        return None
    index = rng.choice(said)
    radius = rng.uniform(*SIZES["medium" if scene.groups[index].size == "small" else "small"])
    return replace(
        scene,
        placements=tuple(replace(item, radius=radius) if item.group == index else item for item in scene.placements),
    )


def _wrong_relation(scene: Scene, rng: random.Random) -> Scene | None:
    if scene.relation is None:
        return None
    beside = scene.relation in ("left of", "right of")
    mirrored = (replace(item, x=64 - item.x) if beside else replace(item, y=64 - item.y) for item in scene.placements)
    return replace(scene, placements=tuple(mirrored))


def _wrong_background(scene: Scene, rng: random.Random) -> Scene | None:
    return replace(scene, background=_other(rng, list(BACKGROUNDS), scene.background))


def _wrong_texture(scene: Scene, rng: random.Random) -> Scene | None:
    return replace(scene, texture=_other(rng, list(TEXTURES), scene.texture))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "change",
    [
        _wrong_color,
        _wrong_shape,
        _one_missing,
        _one_more,
        _wrong_size,
        _wrong_relation,
        _wrong_background,
        _wrong_texture,
    ],
)
def test_one_wrong_attribute_fails(change: Callable[[Scene, random.Random], Scene | None], tier: int) -> None:
    rng = random.Random(tier)
    scenes, required = _sample(tier, 100)
    changed = [change(scene, rng) for scene in scenes]
    kept = [(scene, one) for scene, one in zip(changed, required, strict=True) if scene is not None]
    if not kept:
        assert change is _wrong_relation
        assert tier == 1
        return
    images = render([scene for scene, _ in kept], rng)
    passed = _strict(images, [one for _, one in kept])
    assert passed <= 0.03, f"{change.__name__} in tier {tier} passes {passed:.3f} of {len(kept)}"


def _parts(report: SceneReport) -> dict[str, float]:
    return {part.name: part.score for part in report.parts}


def test_parts_say_what_is_wrong() -> None:
    scene = Scene(
        tier=2,
        groups=(
            Group(count=1, size="small", color="red", shape="circle"),
            Group(count=1, size="large", color="blue", shape="star"),
        ),
        relation="left of",
        position=None,
        placements=(Placement(group=0, x=14, y=30, radius=7), Placement(group=1, x=46, y=34, radius=13)),
        texture="plain",
        background="white",
        axis=0,
        phase=0.0,
    )
    image = render([scene], random.Random(0))[0]
    right = check(image, parse_caption("a small red circle left of a large blue star on a white background"))
    assert right.strict
    assert right.soft == pytest.approx(1.0)
    wrong = _parts(check(image, parse_caption("a large red circle above a blue star on a striped white background")))
    assert {name for name, score in wrong.items() if score < 1} == {"size 0", "relation 0", "texture"}
    swapped = _parts(check(image, parse_caption("a red star left of two blue stars")))
    assert swapped["objects 0"] == pytest.approx(0.4)
    assert swapped["count 1"] == pytest.approx(0.5)


def test_positions_are_told_apart() -> None:
    places = {"top left": (15, 14), "top right": (48, 12), "bottom left": (14, 50), "bottom right": (47, 49)}
    for name, (x, y) in {**places, "center": (33, 31)}.items():
        scene = replace(_sample(1, 1)[0][0], placements=(Placement(group=0, x=x, y=y, radius=9.0),))
        group = scene.groups[0]
        image = render([scene], random.Random(1))[0]
        article = "an" if group.color == "orange" else "a"
        fits = {
            other
            for other in (*places, "center")
            if check(image, parse_caption(f"{article} {group.color} {group.shape} in the {other}")).strict
        }
        assert fits == {name}


@given(st.integers(0, 2**32), st.sampled_from(("noise", "flat", "stripes")))
@settings(max_examples=30, deadline=None)
def test_any_image_gets_a_score(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    image = np.empty((64, 64, 3), np.uint8)
    image[...] = rng.integers(0, 256, {"noise": (64, 64, 3), "flat": (1, 1, 3), "stripes": (64, 1, 3)}[kind])
    report = check(image, parse_caption("a small red circle left of two blue stars on a striped white background"))
    assert 0 <= report.soft <= 1
    assert not report.strict
    assert report == check(
        image, parse_caption("a small red circle left of two blue stars on a striped white background")
    )
