"""Scoring beside the network: requests go to a thread of their own, which waits for the scorers."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from rollout_workers.metrics import Stopwatch


class AsyncScorer:
    """One request after the other, in order: scorers in this process see one thread only, as when they are called.

    That thread computes with as many torch threads as the one that made this.
    """

    def __init__(self, scoring: Scoring, timed: Stopwatch) -> None:
        self._scoring, self._timed = scoring, timed
        threads = torch.get_num_threads()
        self._executor = ThreadPoolExecutor(1, "scoring", initializer=torch.set_num_threads, initargs=(threads,))

    def submit(self, request: ScoreRequest) -> Future[ScoreReply]:
        """Start scoring; the future raises what the scorers raise."""
        return self._executor.submit(self._score, request)

    def close(self) -> None:
        """Drop the requests that wait, and end the thread after the one it is at."""
        self._executor.shutdown(cancel_futures=True)

    def _score(self, request: ScoreRequest) -> ScoreReply:
        with self._timed("score"):
            return self._scoring.score(request)
