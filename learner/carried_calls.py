"""Remote workers that keep their unfinished tickets from one call to the next.

Each has up to two calls: while the answer to one is looked at, it works on the next.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from addiffusion.config import Config
from addiffusion.errors import AdDiffusionError, RolloutError
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from learner.fleet import POLL_S, Fleet

_CALLS = 2


@dataclass(slots=True)
class _Load:
    """What one worker has been given and has not returned."""

    session: int = 0
    """Changes when its tickets were given to others: should it live on, it must forget them."""
    tickets: dict[int, Ticket] = field(default_factory=dict[int, Ticket])
    calls: deque[tuple[Any, float]] = field(default_factory=deque[tuple[Any, float]])
    """References with the time of their submission, the oldest first."""


class CarriedCalls:
    """``advance`` over a fleet. A lost worker's tickets begin again with the others."""

    def __init__(self, fleet: Fleet, config: Config) -> None:
        self._fleet, self._config = fleet, config
        self._loads: dict[int, _Load] = {}
        self._orphans: list[Ticket] = []
        self._losses: Counter[int] = Counter()
        self.reissued_count = 0
        """Tickets given to another worker because theirs was lost."""
        self.waited_s = 0.0
        """Wall clock spent waiting for workers."""

    def advance(self, tickets: Sequence[Ticket], weights: list[Any], version: int) -> Collected:
        """Hand ``tickets`` out and wait until a worker needs another call.

        Raises:
            RolloutError: no worker came back in time, or a ticket lost its worker too often.
            AdDiffusionError: what a worker raised on purpose.
        """
        self._orphans += tickets
        self._fleet.await_worker(self._config.cluster.start_timeout_s)
        self._submit(self._share_out(), weights, version)
        return Collected(episodes=()) if self._has_room() else self._next_answer()

    def _share_out(self) -> dict[int, list[Ticket]]:
        """Each ticket to the worker that has the fewest, among those that have room for a call."""
        for worker_id in self._fleet.up:
            self._loads.setdefault(worker_id, _Load())
        roomy = [worker_id for worker_id in self._fleet.up if len(self._loads[worker_id].calls) < _CALLS]
        new: dict[int, list[Ticket]] = {worker_id: [] for worker_id in roomy}
        while roomy and self._orphans:
            ticket = self._orphans.pop(0)
            worker_id = min(roomy, key=lambda one: (len(self._loads[one].tickets), one))
            new[worker_id].append(ticket)
            self._loads[worker_id].tickets[ticket.ticket_id] = ticket
        return new

    def _submit(self, new: Mapping[int, list[Ticket]], weights: list[Any], version: int) -> None:
        """A call for each worker that has room and tickets."""
        for worker_id, tickets in new.items():
            load = self._loads[worker_id]
            if load.tickets:
                reference = self._fleet.actor(worker_id).work.remote(
                    tickets, session=load.session, weights=weights, weight_version=version
                )
                load.calls.append((reference, time.monotonic()))

    def _has_room(self) -> bool:
        """Whether a worker with tickets could be given another call: then nothing is waited for."""
        loads = [self._loads[worker_id] for worker_id in self._fleet.up]
        return any(load.tickets and len(load.calls) < _CALLS for load in loads)

    def _next_answer(self) -> Collected:
        """The oldest call of the first worker that answers; nothing when one is lost meanwhile."""
        while True:
            oldest = {load.calls[0][0]: worker_id for worker_id, load in self._loads.items() if load.calls}
            if not oldest:
                return Collected(episodes=())
            started = time.perf_counter()
            ready, _ = ray.wait(list(oldest), num_returns=1, timeout=POLL_S)
            self.waited_s += time.perf_counter() - started
            if ready:
                return self._take(oldest[ready[0]])
            if self._give_up_overdue():
                return Collected(episodes=())
            self._fleet.revive()

    def _take(self, worker_id: int) -> Collected:
        load = self._loads[worker_id]
        reference, _ = load.calls.popleft()
        try:
            collected: Collected = ray.get(reference, timeout=self._config.rollout.timeout_s)
        except (RayActorError, ObjectLostError) as error:
            self._lose(worker_id, type(error).__name__)
            return Collected(episodes=())
        except RayTaskError as error:
            raise cause_of(error, worker_id) from error
        for ended in (*collected.episodes, *collected.failed):
            del load.tickets[ended.ticket.ticket_id]
        return collected

    def _give_up_overdue(self) -> bool:
        now, limit_s = time.monotonic(), self._config.rollout.timeout_s
        late = [
            worker_id
            for worker_id, load in self._loads.items()
            if load.calls and now - load.calls[0][1] > limit_s * _CALLS
        ]
        for worker_id in late:
            self._lose(worker_id, f"no answer in {limit_s * _CALLS} s", restart=True)
        return bool(late)

    def _lose(self, worker_id: int, reason: str, *, restart: bool = False) -> None:
        self._fleet.lose(worker_id, reason, restart=restart)
        load = self._loads[worker_id]
        self._loads[worker_id] = _Load(session=load.session + 1)
        self.reissued_count += len(load.tickets)
        for ticket in load.tickets.values():
            self._losses[ticket.ticket_id] += 1
            if self._losses[ticket.ticket_id] > self._config.rollout.max_reissues:
                raise lost_too_often(ticket, self._losses[ticket.ticket_id])
        self._orphans += load.tickets.values()


def cause_of(error: RayTaskError, worker_id: int) -> AdDiffusionError:
    """What a worker raised, as an error of this project."""
    if isinstance(error.cause, AdDiffusionError):
        return error.cause
    return RolloutError(f"Rollout worker {worker_id} failed on purpose or by a defect: {error.cause!r}.")


def lost_too_often(ticket: Ticket, count: int) -> RolloutError:
    """A ticket has taken ``count`` workers with it."""
    return RolloutError(
        f"Ticket {ticket.ticket_id} lost its worker {count} times: the workers' log says why they end (often memory: "
        "lower rollout.slots or rollout.workers).",
        ticket_id=ticket.ticket_id,
    )
