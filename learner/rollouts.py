"""Rollouts over remote workers, any of which may die or hang at any time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from addiffusion.baseline import Baseline
from addiffusion.config import Config, SamplerSection
from addiffusion.records import Episode, FailedEpisode, Ticket
from addiffusion.rollouts import Collected, Rollouts, Staff
from learner.carried_calls import CarriedCalls, cause_of, lost_too_often
from learner.fleet import POLL_S, Fleet, Recruit

_BASELINE_TICKETS = 4
"""A baseline's tickets per call. It may take many seconds an image, and ``rollout.timeout_s`` is for a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Tickets one worker is at work on."""

    worker_id: int
    tickets: tuple[Ticket, ...]
    deadline: float
    """On the monotonic clock."""


class RayRollouts:
    """Implements ``addiffusion.rollouts.Rollouts`` over actors that have ``collect``, ``work`` and ``ping``.

    Tickets are split evenly over the workers that are up. A worker that dies, or outlasts ``rollout.timeout_s`` and
    is then restarted, loses its tickets to the others at once, and gets work again when it answers.
    """

    def __init__(self, actors: Mapping[int, ActorHandle[Any]], config: Config, recruit: Recruit = dict) -> None:
        """Take over ``actors`` by worker id; those Ray may restart come back after a loss. ``recruit`` finds more."""
        self.fleet = Fleet(actors, recruit)
        self._config = config
        self._weights: list[ray.ObjectRef] = []
        self._weight_version = -1
        self._carried = CarriedCalls(self.fleet, config)
        self._reissued_count = 0
        self._waited_s = 0.0

    @property
    def waited_s(self) -> float:
        """Wall clock spent waiting for workers, since construction: all else is this process's own work."""
        return self._waited_s + self._carried.waited_s

    @property
    def reissued_count(self) -> int:
        """Tickets handed to another worker because theirs was lost."""
        return self._reissued_count + self._carried.reissued_count

    def set_weights(self, weights: Any, version: int) -> None:
        """Put ``weights`` into the object store, once; each worker fetches them with its next tickets."""
        self._weights = [ray.put(weights)]
        self._weight_version = version

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Roll out ``tickets`` on all workers that are up.

        Raises:
            RolloutError: no worker came back in time, or a ticket lost its worker too often.
            AdDiffusionError: what a worker raised on purpose (a defect or a wrong configuration, not a loss).
        """
        return self._collect(_OpenWork(pending=list(tickets), sampler=sampler))

    def hosting(self, baseline: Baseline) -> Rollouts:
        """Rollouts of a baseline by the same workers, each of which makes it beside its engine."""
        return _Hosting(
            lambda tickets, sampler: self._collect(_OpenWork(pending=list(tickets), sampler=sampler, baseline=baseline))
        )

    def _collect(self, open_work: _OpenWork) -> Collected:
        while open_work.pending or open_work.calls:
            if open_work.calls:
                self.fleet.revive()
            else:
                self.fleet.await_worker(self._config.cluster.start_timeout_s)
            if open_work.pending and self.fleet.up:
                self._hand_out(open_work)
            self._take_results(open_work)
            self._give_up_overdue(open_work)
        return merge(open_work.collected)

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """One stretch of work that carries unfinished tickets over; see ``CarriedCalls.advance`` for what is raised."""
        return self._carried.advance(tickets, self._weights, self._weight_version)

    def staff(self) -> Staff:
        """Who is at work."""
        return Staff(
            up_count=len(self.fleet.up),
            absent_count=len(self.fleet.absent),
            lost_count=self.fleet.lost_count,
            moved_count=self.reissued_count,
        )

    def dismiss_absent(self) -> None:
        """End workers that wait for a node or for their restart: whoever ends the others would wait for them."""
        for worker_id in self.fleet.absent:
            ray.kill(self.fleet.actor(worker_id))

    def _hand_out(self, open_work: _OpenWork) -> None:
        workers = self.fleet.up
        for number, worker_id in enumerate(workers):
            share = tuple(open_work.pending[number :: len(workers)])
            size = len(share) if open_work.baseline is None else _BASELINE_TICKETS
            for start in range(0, len(share), max(size, 1)):
                self._call(open_work, worker_id, share[start : start + size])
        open_work.pending.clear()

    def _call(self, open_work: _OpenWork, worker_id: int, tickets: tuple[Ticket, ...]) -> None:
        reference = self.fleet.actor(worker_id).collect.remote(
            tickets,
            sampler=open_work.sampler,
            baseline=open_work.baseline,
            weights=self._weights,
            weight_version=self._weight_version,
        )
        queued_count = sum(call.worker_id == worker_id for call in open_work.calls.values())
        deadline = time.monotonic() + self._config.rollout.timeout_s * (1 + queued_count)
        open_work.calls[reference] = Call(worker_id=worker_id, tickets=tickets, deadline=deadline)

    def _take_results(self, open_work: _OpenWork) -> None:
        started = time.perf_counter()
        ready, _ = ray.wait(list(open_work.calls), num_returns=1, timeout=POLL_S)
        self._waited_s += time.perf_counter() - started
        for reference in ready:
            call = open_work.calls.pop(reference)
            try:
                open_work.collected.append(ray.get(reference, timeout=self._config.rollout.timeout_s))
            except (RayActorError, ObjectLostError) as error:
                self.fleet.lose(call.worker_id, type(error).__name__)
                self._reissue(open_work, call)
            except RayTaskError as error:
                raise cause_of(error, call.worker_id) from error

    def _give_up_overdue(self, open_work: _OpenWork) -> None:
        now = time.monotonic()
        late_workers = {call.worker_id for call in open_work.calls.values() if now > call.deadline}
        for reference, call in list(open_work.calls.items()):
            if call.worker_id in late_workers:
                self.fleet.lose(call.worker_id, f"no answer in {self._config.rollout.timeout_s} s", restart=True)
                del open_work.calls[reference]  # should it answer after all, nobody listens
                self._reissue(open_work, call)

    def _reissue(self, open_work: _OpenWork, call: Call) -> None:
        self._reissued_count += len(call.tickets)
        for ticket in call.tickets:
            open_work.losses[ticket.ticket_id] += 1
            if open_work.losses[ticket.ticket_id] > self._config.rollout.max_reissues:
                raise lost_too_often(ticket, open_work.losses[ticket.ticket_id])
        open_work.pending += call.tickets


@dataclass(slots=True, kw_only=True)
class _OpenWork:
    """One ``collect`` on its way."""

    pending: list[Ticket]
    sampler: SamplerSection | None
    baseline: Baseline | None = None
    calls: dict[ray.ObjectRef, Call] = field(default_factory=dict)
    collected: list[Collected] = field(default_factory=list)
    losses: Counter[int] = field(default_factory=Counter)


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
    for part in parts:
        episodes += part.episodes
        failed += part.failed
        for stage, seconds in part.stage_s.items():
            stage_s[stage] += seconds
    return Collected(
        episodes=tuple(sorted(episodes, key=lambda episode: episode.ticket.ticket_id)),
        failed=tuple(sorted(failed, key=lambda failure: failure.ticket.ticket_id)),
        stage_s=dict(stage_s),
    )
