"""Scenes of coloured shapes in three tiers of difficulty, drawn at random from one seedable source.

Lengths are pixels of the 64 x 64 image; x grows to the right, y grows downwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

IMAGE_SIZE = 64
"""Side of every image of this world in pixels."""
SHAPES = ("circle", "square", "triangle", "star", "ring")
COLORS = MappingProxyType(
    {
        "red": (222, 40, 40),
        "orange": (245, 140, 30),
        "yellow": (245, 225, 50),
        "green": (45, 165, 70),
        "blue": (45, 80, 225),
        "purple": (140, 55, 195),
    }
)
"""Object colours, RGB."""
BACKGROUNDS = MappingProxyType(
    {
        "white": (240, 240, 240),
        "gray": (128, 128, 128),
        "black": (22, 22, 22),
        "purple": (66, 40, 84),
        "blue": (30, 40, 92),
        "green": (26, 70, 40),
        "brown": (88, 62, 44),
    }
)
"""Base tones of backgrounds, RGB."""
TEXTURES = ("plain", "striped", "checkered", "gradient")
SIZES = MappingProxyType({"small": (6.2, 7.4), "medium": (8.6, 10.2), "large": (12.0, 14.5)})
"""Range of the drawn radius per size word."""
RELATIONS = ("left of", "right of", "above", "below")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "center")
TIERS = (1, 2, 3)
TIER_WEIGHTS = (0.3, 0.4, 0.3)
"""Share of each tier when none is asked for."""

Region = tuple[float, float, float, float]
"""(left, top, right, bottom)."""

_WHOLE: Region = (0.0, 0.0, float(IMAGE_SIZE), float(IMAGE_SIZE))
_GAP = 2.5
_BOX_GAP = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Extent of a shape of radius 1 around its centre."""

    half_width: float
    top: float
    bottom: float
    reach: float
    """Radius of the smallest centred disc that holds the shape."""


OUTLINES = MappingProxyType(
    {
        "circle": Outline(half_width=1.0, top=1.0, bottom=1.0, reach=1.0),
        "square": Outline(half_width=0.86, top=0.86, bottom=0.86, reach=1.217),
        "triangle": Outline(half_width=0.954, top=1.0, bottom=0.72, reach=1.196),
        "star": Outline(half_width=1.028, top=1.08, bottom=0.874, reach=1.08),
        "ring": Outline(half_width=1.0, top=1.0, bottom=1.0, reach=1.0),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Objects that a caption names together: all of one size, colour and shape."""

    count: int
    size: str
    color: str
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One drawn object."""

    group: int
    """Index into ``Scene.groups``."""
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything a render needs, save the slight jitter of its colours."""

    tier: int
    groups: tuple[Group, ...]
    """Each (colour, shape) occurs once."""
    relation: str | None
    """Holds from each group to the next; None with a single group."""
    position: str | None
    """Where a single object is; None where the caption is silent on it."""
    placements: tuple[Placement, ...]
    texture: str
    background: str
    axis: int
    """Direction along which stripes and gradients vary: 0 is x, 1 is y."""
    phase: float
    """In [0, 1): offset of stripes; gradients run backwards from 0.5 on."""


def sample_scene(rng: random.Random, tier: int | None = None) -> Scene:
    """Draw one scene of ``tier`` (1, 2, 3), or of a tier drawn by TIER_WEIGHTS."""
    tier = rng.choices(TIERS, TIER_WEIGHTS)[0] if tier is None else tier
    while True:
        groups = _sample_groups(rng, tier)
        if len({(group.color, group.shape) for group in groups}) < len(groups):
            continue
        relation = rng.choice(RELATIONS) if len(groups) > 1 else None
        alone = len(groups) == 1 and groups[0].count == 1
        position = rng.choice(POSITIONS) if tier == 2 and alone else None
        placements = _place(rng, groups, _regions(len(groups), relation, position))
        if placements is not None:
            return Scene(
                tier=tier,
                groups=groups,
                relation=relation,
                position=position,
                placements=placements,
                texture=rng.choices(TEXTURES, (0.7, 0.1, 0.1, 0.1) if tier < 3 else (0.4, 0.2, 0.2, 0.2))[0],
                background=rng.choice(tuple(BACKGROUNDS)),
                axis=rng.randint(0, 1),
                phase=rng.random(),
            )


def _sample_groups(rng: random.Random, tier: int) -> tuple[Group, ...]:
    counts = _sample_counts(rng, tier)
    return tuple(_sample_group(rng, count, _sizes(tier, count, len(counts))) for count in counts)


def _sample_group(rng: random.Random, count: int, sizes: Sequence[str]) -> Group:
    return Group(count=count, size=rng.choice(sizes), color=rng.choice(tuple(COLORS)), shape=rng.choice(SHAPES))


def _sample_counts(rng: random.Random, tier: int) -> list[int]:
    """Objects per group."""
    if tier == 1:
        return [1]
    draw = rng.random()
    if tier == 2:
        return [1, 1] if draw < 0.55 else [rng.choice((2, 3))] if draw < 0.85 else [1]
    if draw >= 0.6:
        return [1, 1, 1]
    counts = [rng.choice((1, 2, 3)), rng.choice((1, 2))]
    if counts == [1, 1]:
        counts[0] = 2
    rng.shuffle(counts)
    return counts


def _sizes(tier: int, count: int, groups: int) -> Sequence[str]:
    """Sizes a group may have: tier 1 is easy to see, and crowded regions have no room for large objects."""
    if tier == 1:
        return ("medium", "large", "large")
    return ("small", "medium", "large") if count == 1 and groups < 3 else ("small", "medium")


def _regions(groups: int, relation: str | None, position: str | None) -> list[Region]:
    """Where the objects of each group may lie; strips across the image make the relation true."""
    if relation is not None:
        return _strips(groups, relation)
    if position is None:
        return [_WHOLE]
    if position == "center":
        return [(16.0, 16.0, 48.0, 48.0)]
    left, top = 0.0 if "left" in position else 30.0, 0.0 if "top" in position else 30.0
    return [(left, top, left + 34.0, top + 34.0)]


def _strips(groups: int, relation: str) -> list[Region]:
    width = IMAGE_SIZE / groups
    spans = [(index * width, (index + 1) * width) for index in range(groups)]
    if relation in ("right of", "below"):
        spans.reverse()
    if relation in ("left of", "right of"):
        return [(low, 0.0, high, float(IMAGE_SIZE)) for low, high in spans]
    return [(0.0, low, float(IMAGE_SIZE), high) for low, high in spans]


def _place(rng: random.Random, groups: tuple[Group, ...], regions: list[Region]) -> tuple[Placement, ...] | None:
    """Positions for all objects, or None when they do not fit in 40 attempts."""
    for _ in range(40):
        placed: list[Placement] = []
        wanted = (index for index, group in enumerate(groups) for _ in range(group.count))
        if all(_place_one(rng, groups, index, regions[index], placed) for index in wanted):
            return tuple(placed)
    return None


def _place_one(
    rng: random.Random, groups: tuple[Group, ...], index: int, region: Region, placed: list[Placement]
) -> bool:
    left, top, right, bottom = region
    for _ in range(20):
        radius = rng.uniform(*SIZES[groups[index].size])
        if min(right - left, bottom - top) < 2 * radius + 2:
            continue
        x = rng.uniform(left + radius + 1, right - radius - 1)
        y = rng.uniform(top + radius + 1, bottom - radius - 1)
        new = Placement(group=index, x=x, y=y, radius=radius)
        if all(_apart(groups, new, other) for other in placed):
            placed.append(new)
            return True
    return False


def _apart(groups: tuple[Group, ...], one: Placement, two: Placement) -> bool:
    """Whether two drawn shapes leave a visible gap.

    Radii alone are not enough: corners of squares and triangles reach beyond them, and two objects of one
    colour that touch there would be a single object to anybody who looks.
    """
    distance = math.hypot(one.x - two.x, one.y - two.y)
    if distance <= one.radius + two.radius + _GAP:
        return False
    first, second = OUTLINES[groups[one.group].shape], OUTLINES[groups[two.group].shape]
    if distance >= one.radius * first.reach + two.radius * second.reach + _BOX_GAP:
        return True
    across = abs(one.x - two.x) - one.radius * first.half_width - two.radius * second.half_width
    upper, lower = (one, two) if one.y < two.y else (two, one)
    down, up = OUTLINES[groups[upper.group].shape].bottom, OUTLINES[groups[lower.group].shape].top
    along = lower.y - upper.y - upper.radius * down - lower.radius * up
    return max(across, along) >= _BOX_GAP
