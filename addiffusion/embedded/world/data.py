"""Training data: rendered scenes with captions, every batch a pure function of (seed, step)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from addiffusion.embedded.world import Split
from addiffusion.embedded.world.captions import Detail, write_caption
from addiffusion.embedded.world.render import render
from addiffusion.embedded.world.scenes import TIER_WEIGHTS, TIERS, Scene, sample_scene
from addiffusion.embedded.world.splits import split_of_scene
from addiffusion.seeds import derive_seed

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneBatch:
    """Rendered scenes with one caption each."""

    images: UInt8[np.ndarray, "n 64 64 3"]
    captions: tuple[str, ...]
    scenes: tuple[Scene, ...]


def scene_batch(seed: int, step: int, size: int, *, tier: int | None = None, detail: Detail = "random") -> SceneBatch:
    """Fresh scenes, the same for the same arguments on every machine.

    Args:
        seed: of the stream of batches.
        step: number of the batch.
        size: scenes in it.
        tier: of every scene; None mixes tiers.
        detail: of the captions.
    """
    rng = stream(seed, "scenes", step)
    scenes = tuple(sample_scene(rng, tier) for _ in range(size))
    return SceneBatch(images=render(scenes, rng), captions=describe(scenes, rng, detail), scenes=scenes)


def stream(*parts: int | str) -> random.Random:
    """Python's own source of randomness for one purpose, derived like every seed of the project."""
    return random.Random(derive_seed(*parts))  # noqa: S311  (no secrets here)


def describe(scenes: Sequence[Scene], rng: random.Random, detail: Detail = "random") -> tuple[str, ...]:
    """One caption per scene."""
    return tuple(write_caption(scene, rng, detail) for scene in scenes)


def scene_chunks(
    seed: int, count: int, *, split: Split | None = None, tier_weights: Sequence[float] = TIER_WEIGHTS
) -> Iterator[SceneBatch]:
    """Scenes in batches small enough to render and forget.

    Args:
        seed: of the stream of scenes.
        count: scenes in all.
        split: they belong to; None takes scenes of all.
        tier_weights: shares of the tiers 1, 2 and 3 before the split is looked at.
    """
    for index, start in enumerate(range(0, count, _CHUNK)):
        rng = stream(seed, "scenes", index)
        drawn = (sample_scene(rng, rng.choices(TIERS, tier_weights)[0]) for _ in itertools.count())
        own = (scene for scene in drawn if split is None or split_of_scene(scene) == split)
        scenes = tuple(itertools.islice(own, min(_CHUNK, count - start)))
        yield SceneBatch(images=render(scenes, rng), captions=describe(scenes, rng), scenes=scenes)


class ScenePool:
    """Scenes rendered once and kept in memory (12 KB each): rendering would otherwise be the slowest step on a GPU."""

    def __init__(self, seed: int, count: int, *, tier_weights: Sequence[float] = TIER_WEIGHTS) -> None:
        chunks = list(scene_chunks(seed, count, tier_weights=tier_weights))
        self.scenes: tuple[Scene, ...] = tuple(scene for chunk in chunks for scene in chunk.scenes)
        self.images: UInt8[np.ndarray, "n 64 64 3"] = np.concatenate([chunk.images for chunk in chunks])

    def batch(self, seed: int, step: int, size: int, *, detail: Detail = "random") -> SceneBatch:
        """Scenes of the pool, drawn with replacement, with new captions.

        Args:
            seed: of the stream of batches.
            step: number of the batch.
            size: scenes in it.
            detail: of the captions.
        """
        rng = stream(seed, "pool", step)
        chosen = rng.choices(range(len(self.scenes)), k=size)
        scenes = tuple(self.scenes[index] for index in chosen)
        return SceneBatch(images=self.images[chosen], captions=describe(scenes, rng, detail), scenes=scenes)
