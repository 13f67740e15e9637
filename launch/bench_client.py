"""The load of `addiffusion bench reward`: made-up images, and clients that send them in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from addiffusion.records import ScoreRequest
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

    def work(self, begin: float, seconds: float) -> list[float]:
        """Seconds of each call, from ``begin`` (a time of the wall clock that clients share) for ``seconds``."""
        time.sleep(max(0.0, begin - time.time()))
        return call_for(self._scoring.score, self._work, seconds)


def call_for(score: Callable[[ScoreRequest], Any], work: Sequence[ScoreRequest], seconds: float) -> list[float]:
    """Seconds of each call, until they sum to ``seconds``."""
    latencies: list[float] = []
    while sum(latencies) < seconds:
        started = time.perf_counter()
        score(work[len(latencies) % len(work)])
        latencies.append(time.perf_counter() - started)
    return latencies


def requests(seed: int, batch: int, size: int) -> list[ScoreRequest]:
    """Noise of ``batch`` images a request, ``size`` pixels a side."""
    random = np.random.default_rng(seed)
    prompts = tuple(_PROMPTS[row % len(_PROMPTS)] for row in range(batch))
    return [
        ScoreRequest(images=random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), prompts=prompts)
        for _ in range(max(2, _POOL // batch))
    ]
