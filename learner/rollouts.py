"""Rollouts by remote workers, any of which may die or hang at any time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import ray
from ray.actor import ActorHandle

from addiffusion.baseline import Baseline
from addiffusion.config import Config, SamplerSection
from addiffusion.records import Episode, FailedEpisode, Ticket
from addiffusion.rollouts import Collected, FullQueue, Rollouts, WorkerStatus
from learner.calls import Job
from learner.dispatch import Dispatch
from learner.losses import Pace, WorkerId
from learner.worker_pool import NewWorkers, WorkerPool


class RayRollouts:
    """Implements ``addiffusion.rollouts.Rollouts`` over actors that have ``work``, ``collect`` and ``ping``.

    Tickets go to the workers that are up, those that have the fewest first. A worker that dies, or hangs and is then
    restarted, loses its tickets to the others at once, and gets work again when it answers.
    """

    def __init__(
        self, actors: Mapping[WorkerId, ActorHandle[Any]], config: Config, new_workers: NewWorkers = dict
    ) -> None:
        """Take over workers that have been started.

        Args:
            actors: by worker id; those Ray may restart come back after a loss.
            config: the run's.
            new_workers: finds those that were started later.
        """
        self.pool = WorkerPool(actors, config, new_workers)
        self._rollout = config.rollout
        self._pace = Pace(timeout_s=config.rollout.timeout_s)
        self._baseline_paces: defaultdict[str, Pace] = defaultdict(lambda: Pace(timeout_s=config.rollout.timeout_s))
        self._sessions = count(1)
        self._carried = self._dispatch(Job(counted=True))
        self._last = self._carried
        self._reissued_count = 0

    @property
    def waited_s(self) -> float:
        """Wall clock spent waiting for workers, since construction: all else is this process's own work."""
        return self.pool.waited_s

    @property
    def reissued_count(self) -> int:
        """Tickets handed to another worker because theirs was lost."""
        return self._reissued_count + self._carried.reissued_count

    def set_weights(self, weights: Any, version: int) -> None:
        """Put ``weights`` into the object store, once; each worker fetches them with its next tickets."""
        self.pool.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Roll out ``tickets`` on all workers that are up or come up meanwhile.

        A ticket that takes its worker with it, again and again, comes back as failed.

        Raises:
            RolloutError: no worker came back in time, or too many were lost in a row and nothing was finished.
            AdDiffusionError: what a worker raised on purpose (a defect or a wrong configuration, not a loss).
        """
        return self._collect(Job(sampler=sampler), tickets)

    def hosting(self, baseline: Baseline) -> Rollouts:
        """Rollouts of a baseline by the same workers, each of which makes it beside its engine."""
        return _Hosting(lambda tickets, sampler: self._collect(Job(sampler=sampler, baseline=baseline), tickets))

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """One stretch of work that carries unfinished tickets over; raises what ``collect`` does."""
        if self._last is not self._carried:
            self._carried.recall()
            self._last = self._carried
        return self._carried.advance(tickets)

    def worker_status(self) -> WorkerStatus:
        """Counts of workers that are up, absent and lost, and of tickets that moved."""
        return WorkerStatus(
            up_count=len(self.pool.up),
            absent_count=len(self.pool.absent),
            lost_count=self.pool.lost_count,
            moved_count=self.reissued_count,
        )

    def dismiss_absent(self) -> None:
        """End workers that wait for a node or for their restart: whoever ends the others would wait for them."""
        for worker_id in self.pool.absent:
            ray.kill(self.pool.actor(worker_id))

    def _collect(self, job: Job, tickets: Sequence[Ticket]) -> Collected:
        dispatch = self._dispatch(job)
        if job.baseline is None:
            self._last = dispatch
        parts = [dispatch.advance(tickets)] if tickets else []
        while dispatch.open:
            parts.append(dispatch.advance())
        self._reissued_count += dispatch.reissued_count
        return merge(parts)

    def _dispatch(self, job: Job) -> Dispatch:
        pace = self._pace if job.baseline is None else self._baseline_paces[job.baseline.name]
        return Dispatch(self.pool, self._rollout, job, pace=pace, sessions=self._sessions)


class _Hosting:
    """Implements ``addiffusion.rollouts.Rollouts`` for a baseline: no policy has a say in it."""

    def __init__(self, collect: Callable[[Sequence[Ticket], SamplerSection | None], Collected]) -> None:
        self._collect = collect

    def set_weights(self, weights: Any, version: int) -> None:
        """Nothing here decides."""

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Draw the tickets' prompts and seeds; raises what ``RayRollouts.collect`` does."""
        return self._collect(tickets, sampler)

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """``collect``: nothing is carried over."""
        return self.collect(tickets)


def merge(parts: Iterable[Collected]) -> Collected:
    """Several workers' results as one, in the order of ticket ids."""
    episodes: list[Episode] = []
    failed: list[FailedEpisode] = []
    stage_s: defaultdict[str, float] = defaultdict(float)
    full_queue = FullQueue()
    for part in parts:
        episodes += part.episodes
        failed += part.failed
        for stage, seconds in part.stage_s.items():
            stage_s[stage] += seconds
        full_queue += part.full_queue
    return Collected(
        episodes=tuple(sorted(episodes, key=lambda episode: episode.ticket.ticket_id)),
        failed=tuple(sorted(failed, key=lambda failure: failure.ticket.ticket_id)),
        stage_s=dict(stage_s),
        full_queue=full_queue,
    )
