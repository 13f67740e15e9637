"""The benchmark's prompts: endless streams of captions of one tier and split, drawn on the fly."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator
from typing import Final

from addiffusion.embedded.world import Split
from addiffusion.embedded.world.captions import write_caption
from addiffusion.embedded.world.scenes import sample_scene
from addiffusion.embedded.world.splits import split_of_scene
from addiffusion.seeds import derive_seed

_PATIENCE: Final = 400
"""Draws in a row without a new caption after which a tier's captions count as used up, and repeat."""


def benchmark_captions(tier: int, split: Split, seed: int) -> Iterator[str]:
    """Minimal captions, each once; then all of them again and again, each round in a new order.

    The stream is a pure function of its arguments, so a longer set begins with the shorter one. Tier 1 of the test
    split has 6 captions, tier 2 some thousands, tier 3 more than anybody will draw.
    """
    rng = random.Random(derive_seed(seed, "prompts", split, tier))  # noqa: S311 - no secret
    seen: dict[str, None] = {}
    while (fresh := _fresh_caption(rng, tier, split, seen)) is not None:
        seen[fresh] = None
        yield fresh
    while True:
        yield from rng.sample(tuple(seen), len(seen))


def _fresh_caption(rng: random.Random, tier: int, split: Split, seen: Container[str]) -> str | None:
    for _ in range(_PATIENCE):
        scene = sample_scene(rng, tier)
        if split_of_scene(scene) == split and (caption := write_caption(scene, rng, "minimal")) not in seen:
            return caption
    return None
