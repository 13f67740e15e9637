"""Whether an image shows what a caption says: exact, rule-based, and blind to everything that is not said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import UInt8

from addiffusion.embedded.world.captions import RequiredGroup, Requirement
from addiffusion.embedded.world.scenes import IMAGE_SIZE
from addiffusion.embedded.world.segmentation import Seen, SeenObject, segment

SMALL_BELOW = 8.0
"""Radius in pixels halfway between the largest small and the smallest medium object."""
LARGE_ABOVE = 11.1
"""Radius in pixels halfway between the largest medium and the smallest large object."""
MIN_SHARE = 0.8
"""Share of the background that must have the named tones."""

_DIRECTIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing the caption says, and how far it holds in [0, 1]."""

    name: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneReport:
    """The verdict on one image."""

    soft: float
    """Mean of the parts, in [0, 1]."""
    strict: bool
    """Whether every part holds entirely."""
    parts: tuple[Part, ...]


def check(image: UInt8[np.ndarray, "64 64 3"], requirement: Requirement) -> SceneReport:
    """Judge ``image`` against what a caption requires."""
    seen = segment(image)
    parts = tuple(Part(name=name, score=score) for name, score in _parts(seen, requirement))
    return SceneReport(
        soft=sum(part.score for part in parts) / len(parts),
        strict=all(part.score >= 0.999 for part in parts),
        parts=parts,
    )


def _parts(seen: Seen, requirement: Requirement) -> Iterator[tuple[str, float]]:
    members = [_members(seen.objects, group) for group in requirement.groups]
    for index, (group, found) in enumerate(zip(requirement.groups, members, strict=True)):
        yield f"objects {index}", _presence(seen.objects, group, len(found))
        yield f"count {index}", max(0.0, 1 - abs(len(found) - group.count) / group.count) if found else 0.0
        if group.size is not None:
            yield f"size {index}", _share([_has_size(item, group.size) for item in found])
    unasked = len(seen.objects) - sum(group.count for group in requirement.groups)
    yield "nothing else", max(0.0, 1 - 0.5 * max(0, unasked))
    if requirement.relation is not None:
        for index, (one, two) in enumerate(pairwise(members)):
            yield f"relation {index}", _share([_relates(a, b, requirement.relation) for a in one for b in two])
    if requirement.position is not None:
        yield "position", _share([_is_at(item, requirement.position) for item in members[0]])
    if requirement.background is not None:
        right = seen.background.name == requirement.background
        yield "background", min(1.0, seen.background.share / MIN_SHARE) if right else 0.0
        yield "texture", float(right and seen.background.texture == requirement.texture)


def _members(objects: Sequence[SeenObject], group: RequiredGroup) -> list[SeenObject]:
    return [item for item in objects if item.color == group.color and item.shape == group.shape]


def _presence(objects: Sequence[SeenObject], group: RequiredGroup, found: int) -> float:
    """Partial credit: right objects count most, but the right colour or the right shape alone is a start."""
    colored = sum(item.color == group.color for item in objects)
    shaped = sum(item.shape == group.shape for item in objects)
    full, color, shape = (min(number, group.count) / group.count for number in (found, colored, shaped))
    return 0.6 * full + 0.2 * color + 0.2 * shape


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def _has_size(item: SeenObject, size: str) -> bool:
    return item.radius < SMALL_BELOW if size == "small" else item.radius > LARGE_ABOVE


def _relates(one: SeenObject, two: SeenObject, relation: str) -> bool:
    """Whether ``one`` lies wholly on its side of ``two``, but for a slight overlap."""
    right, down = _DIRECTIONS[relation]
    shift = right * (two.x - one.x) + down * (two.y - one.y)
    return shift > 0.75 * (one.radius + two.radius)


def _is_at(item: SeenObject, position: str) -> bool:
    """Centres reach 8.8 pixels off the middle in each direction, corners begin 5.2 off it; half a pixel is slack."""
    middle = IMAGE_SIZE / 2
    right, down = item.x - middle, item.y - middle
    if position == "center":
        return max(abs(right), abs(down)) < 9.5
    across = -right if "left" in position else right
    along = -down if "top" in position else down
    return min(across, along) > 4.5
