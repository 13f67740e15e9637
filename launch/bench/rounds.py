"""Comparing ways to do the same work on a noisy machine: short turns, many rounds, ratios within a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
from rich.console import Console

from launch.runtime.console import Stage

Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One contestant at work for a moment."""

    image_count: int
    seconds: float
    latencies_s: tuple[float, ...]
    """Seconds of each call."""

    @property
    def images_per_s(self) -> float:
        """Throughput of this turn."""
        return self.image_count / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Throughput of the median turn, and latency of one call over all turns."""

    images_per_s: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How much faster one contestant is than another: the median round, and the extremes."""

    median: float
    low: float
    high: float


def take_turns(
    contestants: Mapping[str, Callable[[], Taken]], rounds: int, announce: Callable[[int, str], None]
) -> dict[str, list[Taken]]:
    """All contestants once per round; every second round runs backwards, so that a drift favours nobody.

    ``announce`` is told the round (from 1) and the contestant before each turn.
    """
    turns: dict[str, list[Taken]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name in contestants if number % 2 else reversed(list(contestants)):
            announce(number, name)
            turns[name].append(contestants[name]())
    return turns


def shown_turns(
    contestants: Mapping[str, Callable[[], Taken]], rounds: int, console: Console, *, title: str = "turns"
) -> dict[str, list[Taken]]:
    """``take_turns``, counted on a console.

    Args:
        contestants: each takes a turn a round.
        rounds: how many.
        console: where the turns are counted.
        title: of the count.
    """
    total, begun = rounds * len(contestants), count()
    with Stage(console, title, total, headline="") as stage:
        turns = take_turns(
            contestants, rounds, lambda number, name: stage.reach(next(begun), f"round {number}: {name}")
        )
        stage.reach(total)
    return turns


def measured(turns: Sequence[Turn]) -> Measured:
    """All turns of one contestant as one row of a table."""
    p50, p95 = np.percentile([latency for turn in turns for latency in turn.latencies_s], [50, 95]) * 1000
    return Measured(
        images_per_s=float(np.median([turn.images_per_s for turn in turns])), p50_ms=float(p50), p95_ms=float(p95)
    )


def ratio(turns: Sequence[Turn], others: Sequence[Turn]) -> Ratio:
    """Throughput of ``turns`` over that of ``others`` in the same rounds."""
    each = [turn.images_per_s / other.images_per_s for turn, other in zip(turns, others, strict=True)]
    return Ratio(median=float(np.median(each)), low=min(each), high=max(each))
