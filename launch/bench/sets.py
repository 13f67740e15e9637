"""Whole sets of images, as a comparison draws them: seconds per image while others wait, and with the set's tail."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.config import RefineSection
from addiffusion.rollouts import FullQueue
from addiffusion.sampling.engine import Engine
from evaluation.tables import Table
from launch.bench.contestants import SAMPLER, BenchSetup
from launch.bench.rounds import shown_turns

SHORTEST, LONGEST = 5, 20
"""Passes of a policy's images are drawn from U[SHORTEST, LONGEST]."""
AIMS: Final = {"full_queue": 1.15, "whole_set": 1.3}
"""Most seconds of a policy's image over a static sampler's of equal cost."""
ROWS: Final = {"full_queue": "a policy's images, full queue", "whole_set": "a policy's images, whole set"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPace:
    """Seconds for each NFE of one set."""

    full_queue: float
    """While images waited for a slot."""
    whole_set: float


class ImageSet:
    """Images of given lengths, more than there are slots, drawn until none is left; passes shrink with what is left."""

    def __init__(self, setup: BenchSetup, lengths: Sequence[int], *, buckets: bool) -> None:
        """Nothing is drawn yet.

        Args:
            setup: the model.
            lengths: passes of each image, in the order in which they are begun.
            buckets: passes have as many rows as are needed, rounded up to a power of two.
        """
        self._setup, self._lengths = setup, lengths
        self._engine = Engine(
            setup.backbone,
            SAMPLER,
            RefineSection(),
            slots=setup.slots,
            guidance_scale=setup.guidance_scale,
            row_buckets=buckets,
        )

    def draw(self) -> SetPace:
        """The whole set once, and what it took."""
        engine = self._engine
        on_cpu = self._setup.backbone.device.type == "cpu"  # whose seconds no neighbour can lengthen
        clock = time.process_time if on_cpu else self._setup.finished_s
        waiting, left, full = deque(range(len(self._lengths))), dict[int, int](), FullQueue()
        begun = now = clock()
        while waiting or len(engine.free()) < len(engine):
            for slot in engine.free()[: len(waiting)]:
                image = waiting.popleft()
                engine.admit(slot, embedding=self._setup.prompt, seed=image)
                left[slot] = self._lengths[image] - SAMPLER.warmup_steps
            rows, is_full = engine.rows_wanted, bool(waiting)
            engine.tick()
            engine.act({slot: _action(slot, left) for slot in engine.deciding()})
            for slot in engine.done():
                engine.release(slot)
            before, now = now, clock()
            full += FullQueue(seconds=now - before, network_evals=rows) if is_full else FullQueue()
        return SetPace(
            full_queue=full.seconds_per_eval * self._setup.rows_per_slot, whole_set=(now - begun) / sum(self._lengths)
        )


def bench_sets(setup: BenchSetup, *, per_slot: int, rounds: int, buckets: bool, console: Console) -> dict[str, Any]:
    """Seconds per image of a policy's images and of a static sampler's of equal cost, and the medians of their ratios.

    Args:
        setup: the model, and the slots of the engine.
        per_slot: images of a set for each slot; at least two are taken, or nobody would wait.
        rounds: in which both take turns.
        buckets: as of ``ImageSet``.
        console: shows how far they are.
    """
    count = max(per_slot, 2) * setup.slots
    lengths = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, count)
    mean = float(lengths.mean())
    kinds = {"policy": lengths.tolist(), "static": [round(mean)] * count}
    sets = {name: ImageSet(setup, members, buckets=buckets) for name, members in kinds.items()}
    turns = shown_turns({name: one.draw for name, one in sets.items()}, rounds, console, title="sets")
    found: dict[str, Any] = {"set_images": count, "set_mean_nfe": mean}
    for stretch in AIMS:
        paces = {name: np.array([getattr(pace, stretch) for pace in turns[name]]) for name in sets}
        found |= {f"{name}_{stretch}_s": float(np.median(pace)) * mean for name, pace in paces.items()}
        found[f"{stretch}_over_static"] = float(np.median(paces["policy"] / paces["static"]))
    return found


def add_rows(table: Table, result: dict[str, Any]) -> None:
    """The result for people, below what else the engine was measured by; nothing where no set was drawn."""
    if "set_images" not in result:
        return
    table.add_section()
    size = f"{result['set_images']} images of {result['set_mean_nfe']:.1f} NFE on average"
    table.add_row(f"sets of {size}", "s/image", "over static")
    for stretch, text in ROWS.items():
        ratio, aim = result[f"{stretch}_over_static"], AIMS[stretch]
        table.add_row(text, f"{result[f'policy_{stretch}_s']:.3f}", f"{ratio:.2f} (aim: {aim:g})")


def _action(slot: int, left: dict[int, int]) -> Action:
    left[slot] -= 1
    return Action.CONTINUE if left[slot] else Action.STOP
