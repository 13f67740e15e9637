"""Which split of the benchmark owns a scene: train, validation, test, or the compositional one.

The rule hangs on what is asked for alone (counts, colours, shapes, and the axis of the relation), so another size,
order, background or place never carries a combination from one split to another:

* a scene with a held-out pair of colour and shape belongs to ``compositional``; such pairs occur in no other split,
  though each of their colours and shapes does, so only the pairing is new there;
* any other combination goes by its hash: 60 % train, 20 % validation, 20 % test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from types import MappingProxyType
from typing import Final

from addiffusion.embedded.world import Split
from addiffusion.embedded.world.captions import RequiredGroup, parse_caption
from addiffusion.embedded.world.scenes import COLORS, SHAPES, Group, Scene
from addiffusion.seeds import derive_seed

SPLIT_SHARES: Final[Mapping[Split, float]] = MappingProxyType({"train": 0.6, "validation": 0.2, "test": 0.2})
"""Share of the combinations without a held-out pair that each split owns."""
HELD_OUT_COUNT: Final = 3
"""Pairs of colour and shape that belong to the compositional split."""

_SALT: Final = "split 32526"
# It shares the 30 single objects 15 : 6 : 6 : 3, and every colour and shape is among those of train and of test.


def _held_out_pairs() -> frozenset[tuple[str, str]]:
    """The first pairs by hash that share no colour and no shape, so that every colour and shape has others."""
    chosen: list[tuple[str, str]] = []
    for color, shape in sorted(product(COLORS, SHAPES), key=lambda pair: derive_seed(_SALT, "pair", *pair)):
        if all(color != other_color and shape != other_shape for other_color, other_shape in chosen):
            chosen.append((color, shape))
    return frozenset(chosen[:HELD_OUT_COUNT])


HELD_OUT_PAIRS: Final = _held_out_pairs()
"""(colour, shape) pairs that only compositional scenes and captions show."""


def split_of_scene(scene: Scene) -> Split:
    """The split that owns ``scene`` and each of its captions; a few microseconds."""
    return _split_of(scene.groups, scene.relation)


def split_of(caption: str) -> Split:
    """The split that owns an embedded caption.

    Raises:
        PromptError: the caption is outside the grammar.
    """
    requirement = parse_caption(caption)
    return _split_of(requirement.groups, requirement.relation)


def _split_of(groups: Iterable[Group] | Iterable[RequiredGroup], relation: str | None) -> Split:
    if any((group.color, group.shape) in HELD_OUT_PAIRS for group in groups):
        return "compositional"
    draw = derive_seed(_SALT, _combination(groups, relation)) / 2**63
    for split, share in SPLIT_SHARES.items():
        if draw < share:
            return split
        draw -= share
    return "test"


def _combination(groups: Iterable[Group] | Iterable[RequiredGroup], relation: str | None) -> str:
    # "a left of b" and "b right of a" are the same picture
    axis = "" if relation is None else "beside" if relation in ("left of", "right of") else "stacked"
    return "|".join([axis, *sorted(f"{group.count} {group.color} {group.shape}" for group in groups)])
