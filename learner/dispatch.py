"""Which worker works on which tickets, for workers any of which may be lost at any time. Knows nothing of Ray.

A worker has up to two calls: while the answer to one is looked at, it works on the next. A call is a stretch of work,
not a share of tickets: what is unfinished at its end goes on with the next one, so slots never wait for each other.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heapreplace

from addiffusion.config import RolloutSection
from addiffusion.errors import ContractError
from addiffusion.records import FailedEpisode, Ticket, TicketId
from addiffusion.rollouts import Collected
from learner.calls import POLL_S, Job, Loss, Order, Workers
from learner.losses import Pace, WorkerId
from learner.suspects import WaitingTickets

_CALLS = 2
_ROUNDS = 4
"""Tickets per slot that a worker holds at most: two stretches must not leave a slot without one."""
COUNTED_ROUNDS = 2
"""The same where tickets are counted: every slot has a ticket, and one waits for it. What is handed out while only one
worker can take a call is not all for that one."""
_BASELINE_TICKETS = 4
"""A baseline's tickets per call. It draws image by image, each of which may take many seconds."""


@dataclass(slots=True, kw_only=True)
class _Load:
    """What one worker has been given and has not returned."""

    session: int
    tickets: dict[TicketId, Ticket] = field(default_factory=dict[TicketId, Ticket])
    calls: deque[Hashable] = field(default_factory=deque[Hashable])
    """References, the oldest first."""
    since: float = 0.0
    """When the oldest call began, or the one before it was answered."""
    given: float = 0.0
    """When it last was given tickets and had none."""
    suspect: bool = False
    """Its tickets are a group of suspects: nothing else is added to them."""


class Dispatch:
    """Tickets of one job on their way through the workers. Each ends exactly once, whoever is lost meanwhile."""

    def __init__(
        self,
        workers: Workers,
        rollout: RolloutSection,
        job: Job,
        *,
        pace: Pace,
        sessions: Iterator[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A job without tickets.

        Args:
            workers: those that tickets go to.
            rollout: slots per worker, and how often a ticket may be handed out again.
            job: how tickets are rolled out.
            pace: what episodes took so far.
            sessions: numbers none of which has been used with these workers.
            clock: seconds.
        """
        self._workers, self._job, self._pace = workers, job, pace
        self._sessions, self._clock = sessions, clock
        self._slots = rollout.slots
        self._waiting = WaitingTickets(max_reissues=rollout.max_reissues, hazard=workers.hazard)
        self._loads: dict[WorkerId, _Load] = {}
        self._refused: list[FailedEpisode] = []
        self._in_time_until = -math.inf
        """Before then no call can be overdue."""
        self.reissued_count = 0
        """Tickets given to another worker because theirs was lost."""

    @property
    def open(self) -> bool:
        """Whether there are tickets that have not ended."""
        return bool(self._waiting or self._refused) or any(load.tickets for load in self._loads.values())

    def advance(self, tickets: Sequence[Ticket] = ()) -> Collected:
        """Hand ``tickets`` out and wait until a worker needs another call; returns what has ended.

        Raises:
            RolloutError: no worker came back in time, or too many were lost in a row.
            AdDiffusionError: what a worker raised on purpose.
        """
        self._waiting.add(tickets)
        self._workers.await_worker()
        self._give_up_overdue()
        submitted = self._submit(self._share_out())
        return self._refusals() if submitted and self._has_room() else self._next_answer()

    def recall(self) -> None:
        """Begin all open tickets again: the workers have been given something else meanwhile."""
        for load in self._loads.values():
            if load.tickets:
                self._waiting.take_back([*load.tickets.values()], suspect=load.suspect)
        self._loads.clear()

    # ---------------------------------------------------------------- handing out

    def _share_out(self) -> dict[WorkerId, list[Ticket]]:
        """New tickets of each worker that has room for a call; none, for one whose model is not loaded yet."""
        up = self._workers.up
        for worker_id in up:
            if worker_id not in self._loads:
                self._loads[worker_id] = _Load(session=next(self._sessions))
        roomy = [worker_id for worker_id in up if len(self._loads[worker_id].calls) < _CALLS]
        new: dict[WorkerId, list[Ticket]] = {worker_id: [] for worker_id in roomy if self._is_tried(worker_id)}
        self._share_suspects(new)
        self._share_fresh(new)
        return new | {worker_id: [] for worker_id in roomy if worker_id not in new}

    def _is_tried(self, worker_id: WorkerId) -> bool:
        """Whether the worker can be trusted with tickets: one that is lost while it loads takes none with it."""
        return worker_id in self._workers.tried or not self._keeps

    def _share_suspects(self, new: dict[WorkerId, list[Ticket]]) -> None:
        """A group to each worker that has nothing."""
        for worker_id in new:
            load = self._loads[worker_id]
            if not load.tickets:
                load.suspect = bool(self._waiting.groups)
                for ticket in self._waiting.groups.popleft() if load.suspect else ():
                    self._give(worker_id, ticket, new)

    def _share_fresh(self, new: dict[WorkerId, list[Ticket]]) -> None:
        """Each ticket to the worker that has the fewest."""
        kept_free = self._kept_free()
        takers = [
            (len(self._loads[one].tickets), one) for one in new if not self._loads[one].suspect and one not in kept_free
        ]
        heapify(takers)  # the least loaded first, of those the first: all of a batch's tickets go through here
        while takers and self._waiting.fresh:
            count, worker_id = takers[0]
            if self._is_full(worker_id, new):
                heappop(takers)
            else:
                self._give(worker_id, self._waiting.fresh.popleft(), new)
                heapreplace(takers, (count + 1, worker_id))

    def _kept_free(self) -> set[WorkerId]:
        """Workers that get nothing new, so that they can take a waiting group: those with the fewest tickets."""
        if not self._waiting.groups:
            return set()
        up = self._workers.up
        others = [one for one in up if not self._loads[one].suspect]
        wanted = max(1, len(up) // 2) - (len(up) - len(others))
        by_tickets = sorted(others, key=lambda one: len(self._loads[one].tickets))
        return set(by_tickets[: max(0, min(wanted, len(self._waiting.groups)))])

    def _is_full(self, worker_id: WorkerId, new: dict[WorkerId, list[Ticket]]) -> bool:
        if self._job.counted:
            return len(self._loads[worker_id].tickets) >= COUNTED_ROUNDS * self._slots
        if self._job.baseline is not None:
            return len(new[worker_id]) >= _BASELINE_TICKETS
        return len(self._loads[worker_id].tickets) >= _ROUNDS * self._slots

    def _give(self, worker_id: WorkerId, ticket: Ticket, new: dict[WorkerId, list[Ticket]]) -> None:
        load = self._loads[worker_id]
        if not load.tickets:
            load.given = self._clock()
        new[worker_id].append(ticket)
        load.tickets[ticket.ticket_id] = ticket

    def _submit(self, new: dict[WorkerId, list[Ticket]]) -> bool:
        """A call for each worker that has room and tickets; whether there was any."""
        more = not self._job.counted and bool(self._waiting.fresh)
        called = [one for one, tickets in new.items() if tickets or self._has_use_for_a_call(one)]
        for worker_id in called:
            load = self._loads[worker_id]
            if not load.calls:
                load.since = self._clock()
            order = Order(job=self._job, tickets=tuple(new[worker_id]), session=load.session, more=more)
            load.calls.append(self._workers.submit(worker_id, order))
        return bool(called)

    def _has_use_for_a_call(self, worker_id: WorkerId) -> bool:
        """Without new tickets: to go on with those it has, or to load its model."""
        load = self._loads[worker_id]
        return self._keeps if load.tickets else not load.calls and not self._is_tried(worker_id)

    @property
    def _keeps(self) -> bool:
        """Whether workers keep unfinished tickets from one call to the next."""
        return self._job.baseline is None

    def _has_room(self) -> bool:
        """Whether a worker with tickets could be given another call: then nothing is waited for."""
        loads = [self._loads[worker_id] for worker_id in self._workers.up]
        return any(load.tickets and len(load.calls) < _CALLS for load in loads)

    # ---------------------------------------------------------------- taking in

    def _next_answer(self) -> Collected:
        """Of the oldest call of the first worker that answers; nothing new when one is lost meanwhile."""
        while oldest := self._oldest():
            ready = self._workers.answered(list(oldest), timeout_s=POLL_S)
            if ready:
                return self._take(oldest[ready[0]])
            self._workers.revive()
            if self._give_up_overdue() or self._somebody_is_idle():
                break
        return self._refusals()

    def _somebody_is_idle(self) -> bool:
        """Whether tickets wait, and a worker has come that has been given none."""
        return bool(self._waiting) and any(worker_id not in self._loads for worker_id in self._workers.up)

    def _oldest(self) -> dict[Hashable, WorkerId]:
        return {load.calls[0]: worker_id for worker_id, load in self._loads.items() if load.calls}

    def _take(self, worker_id: WorkerId) -> Collected:
        load = self._loads[worker_id]
        answer = self._workers.answer(worker_id, load.calls.popleft())
        if isinstance(answer, Loss):
            self._lose(worker_id, answer.reason)
            return self._refusals()
        self._workers.tried.add(worker_id)
        self._workers.hazard.worked(self._clock() - load.since, lost=False)
        load.since = self._clock()
        self._pace.note(answer.episodes)
        if answer.episodes:
            self._workers.finished()
        for ended in (*answer.episodes, *answer.failed):
            if load.tickets.pop(ended.ticket.ticket_id, None) is None:
                raise ContractError(
                    f"Rollout worker {worker_id} returned ticket {ended.ticket.ticket_id}, which it does not have.",
                    ticket_id=ended.ticket.ticket_id,
                )
        return self._refusals(answer)

    def _refusals(self, answer: Collected | None = None) -> Collected:
        """``answer`` (nothing, where there is none) and the tickets that have been refused since the last one."""
        answer = answer or Collected(episodes=())
        refused, self._refused = self._refused, []
        return replace(answer, failed=(*answer.failed, *refused))

    # ---------------------------------------------------------------- losses

    def _give_up_overdue(self) -> bool:
        now = self._clock()
        if now < self._in_time_until:
            return False
        oldest = min((load.since for load in self._loads.values() if load.calls), default=now)
        self._in_time_until = oldest + self._pace.least_limit_s  # calls only become younger
        late = {load.calls[0]: one for one, load in self._loads.items() if load.calls and self._lateness_s(load) > 0}
        if not late:
            return False
        answered = self._workers.answered(list(late), timeout_s=0.0)
        hanging = [worker_id for reference, worker_id in late.items() if reference not in answered]
        for worker_id in hanging:
            self._lose(worker_id, "no answer", restart=True)
        return bool(hanging)

    def _lateness_s(self, load: _Load) -> float:
        at_once = self._slots if self._keeps else 1
        return self._clock() - load.since - self._pace.limit_s(len(load.tickets), at_once=at_once)

    def _lose(self, worker_id: WorkerId, reason: str, *, restart: bool = False) -> None:
        load = self._loads.pop(worker_id)
        tickets = [*load.tickets.values()]
        self.reissued_count += len(tickets)
        now = self._clock()
        self._workers.hazard.worked(now - load.since, lost=True)
        if tickets:
            refused = self._waiting.lost(tickets, reason, seconds=now - load.given)
            self._refused += [refused] if refused is not None else []
        measured = f"{now - load.since:.0f} s into a call with {len(tickets)} tickets; {self._pace.words()}"
        self._workers.lose(worker_id, reason, measured, restart=restart)
