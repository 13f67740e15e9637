"""What exactly an image of the embedded world gets right: objects, colours, counts, relations, ..."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check
from addiffusion.embedded.world.segmentation import segment

_requirement = lru_cache(maxsize=4096)(parse_caption)
_TITLES = {"nothing else": "nothing_else"}


def category_scores(image: NDArray[np.uint8], caption: str) -> dict[str, float]:
    """Share of each kind of demand that an image (64, 64, 3) meets, as ``category_<kind>``; only kinds that occur.

    Kinds are those of the checker's parts, and ``color``: right colours in the right number, whatever the shapes.

    Raises:
        PromptError: the caption is outside the grammar.
    """
    requirement = _requirement(caption)
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for part in check(image, requirement).parts:
        kind = part.name.rstrip("0123456789").strip()
        kinds[_TITLES.get(kind, kind)].append(part.score)
    objects = segment(image).objects
    for group in requirement.groups:
        found = sum(item.color == group.color for item in objects)
        kinds["color"].append(max(0.0, 1 - abs(found - group.count) / group.count))
    return {f"category_{kind}": float(np.mean(scores)) for kind, scores in kinds.items()}
