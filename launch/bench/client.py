"""The load of `addiffusion bench reward`: made-up images, and clients that send them in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from addiffusion.records import ScoreRequest
from launch.bench.rounds import Turn
from reward_service.client import RemoteScoring

_POOL: Final = 64
"""Distinct images per client. Nothing is cached, so more would change nothing."""
_PROMPTS: Final = ("a red circle", "a blue square", "two green stars", "a yellow ring")


class BenchClient:
    """One rollout worker's worth of requests, one after another."""

    def __init__(self, scoring: RemoteScoring, work: Sequence[ScoreRequest]) -> None:
        self._scoring = scoring
        self._work = work

    def warm_up(self) -> None:
        """Everything imported, connected and cached."""
        self._scoring.score(self._work[0])

    def work(self, begin: float, seconds: float) -> Turn:
        """Its calls from ``begin`` (a time of the wall clock that clients share) for ``seconds``."""
        time.sleep(max(0.0, begin - time.time()))
        return call_for(self._scoring.score, self._work, seconds)


def call_for(score: Callable[[ScoreRequest], Any], work: Sequence[ScoreRequest], seconds: float) -> Turn:
    """One call after another until they sum to ``seconds``."""
    latencies: list[float] = []
    while sum(latencies) < seconds:
        started = time.perf_counter()
        score(work[len(latencies) % len(work)])
        latencies.append(time.perf_counter() - started)
    return Turn(image_count=len(latencies) * len(work[0].images), seconds=sum(latencies), latencies_s=tuple(latencies))


def together(turns: Sequence[Turn]) -> Turn:
    """What clients did that began at the same moment."""
    return Turn(
        image_count=sum(turn.image_count for turn in turns),
        seconds=max(turn.seconds for turn in turns),
        latencies_s=tuple(latency for turn in turns for latency in turn.latencies_s),
    )


def requests(seed: int, count: int, size: int) -> list[ScoreRequest]:
    """Noise of ``count`` images a request, ``size`` pixels a side."""
    random = np.random.default_rng(seed)
    prompts = tuple(_PROMPTS[row % len(_PROMPTS)] for row in range(count))
    return [
        ScoreRequest(images=random.integers(0, 256, (count, size, size, 3), dtype=np.uint8), prompts=prompts)
        for _ in range(max(2, _POOL // count))
    ]
