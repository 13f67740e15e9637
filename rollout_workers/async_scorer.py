"""Scoring beside the network: requests go to a thread of their own, which waits for the scorers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from rollout_workers.stopwatch import Stopwatch


class ScoringLane:
    """One request after the other, in order. Scorers in this process then see one thread only, as without a lane."""

    def __init__(self, scoring: Scoring, timed: Stopwatch, executor: ThreadPoolExecutor) -> None:
        self._scoring = scoring
        self._timed = timed
        self._executor = executor

    def submit(self, request: ScoreRequest) -> Future[ScoreReply]:
        """Start scoring; the future raises what the scorers raise."""
        return self._executor.submit(self._score, request)

    def _score(self, request: ScoreRequest) -> ScoreReply:
        with self._timed("score"):
            return self._scoring.score(request)


@contextmanager
def scoring_lane(scoring: Scoring, timed: Stopwatch) -> Iterator[ScoringLane]:
    """A lane that ends with the block. Its thread computes with as many torch threads as the caller's."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, "scoring", initializer=torch.set_num_threads, initargs=(threads,)) as executor:
        try:
            yield ScoringLane(scoring, timed, executor)
        finally:
            executor.shutdown(cancel_futures=True)
