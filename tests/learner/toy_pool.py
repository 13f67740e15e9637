"""Simulated workers with a clock of their own: they may be killed, hang or be slow, and tickets may kill them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from addiffusion.errors import RolloutError
from addiffusion.records import Episode, Ticket
from addiffusion.rollouts import Collected
from learner.calls import Loss, Order
from learner.losses import Hazard, LossRecord
from tests.learner.toy import toy_episode

RESTART_S = 2.0
LOAD_TICKS = 3
"""In a process's first call."""


@dataclass(slots=True, kw_only=True)
class SimulatedWorker:
    """One process: a queue of calls and slots of tickets that need so many more ticks."""

    session: int = -1
    held: dict[int, tuple[Ticket, int]] = field(default_factory=dict[int, tuple[Ticket, int]])
    """Ticket and the ticks it needs, the first ``slots`` of which are at work."""
    queue: deque[tuple[int, Order]] = field(default_factory=deque[tuple[int, Order]])
    began: float = 0.0
    """When the call at the head of the queue was begun."""
    up_at: float | None = 0.0
    """None: it is gone for good."""
    hangs: bool = False


class SimulatedPool:
    """Implements ``learner.calls.Workers``.

    A tick takes ``tick_s``; ticket n needs ``3 + n % 5`` of them. A ticket of ``poison`` ends its worker in its second
    tick. ``kills`` are (time, worker) at which a process is killed from outside; a ticket that is alone there is spared
    after ``spared_after`` of them, so that nothing but poison looks like poison.
    """

    def __init__(
        self,
        workers: int,
        *,
        slots: int = 2,
        tick_s: float = 1.0,
        carry_ticks: int = 4,
        poison: Collection[int] = (),
        kills: Iterable[tuple[float, int]] = (),
        spared_after: int = 3,
        max_restarts: int = 8,
    ) -> None:
        self.now, self.slots, self.tick_s, self.carry_ticks = 0.0, slots, tick_s, carry_ticks
        self.workers = {number: SimulatedWorker() for number in range(workers)}
        self.log: list[str] = []
        """What was said of each loss."""
        self.history: list[tuple[str, int]] = []
        """Every start and loss of a worker as the driver saw it, and every `finished`."""
        self.slot_ticks = 0
        """Ticks of all workers times slots."""
        self._spared_after, self._killed_alone = spared_after, Counter[int]()
        self._poison, self._kills = frozenset(poison), deque(sorted(kills))
        self.losses = LossRecord(max_restarts=max_restarts)
        self._numbers = count()
        self.sessions = count()
        self._answers: dict[int, Collected | Loss] = {}
        self._known_up = set(self.workers)
        self.tried = set(self.workers)
        self.hazard = Hazard()

    def clock(self) -> float:
        return self.now

    # ---------------------------------------------------------------- what Dispatch asks

    @property
    def up(self) -> list[int]:
        return sorted(self._known_up)

    def submit(self, worker_id: int, order: Order) -> Hashable:
        number, worker = next(self._numbers), self.workers[worker_id]
        if worker.up_at is None or worker.up_at > self.now:
            self._answers[number] = Loss(reason="gone")
        else:
            if not worker.queue:
                worker.began = self.now
            worker.queue.append((number, order))
        return number

    def answered(self, references: Sequence[Hashable], *, timeout_s: float) -> list[Hashable]:
        end = self.now + timeout_s
        while not any(reference in self._answers for reference in references) and self._step(end):
            pass
        return [reference for reference in references if reference in self._answers][:1]

    def answer(self, worker_id: int, reference: Hashable) -> Collected | Loss:
        assert isinstance(reference, int)
        return self._answers.pop(reference)

    def lose(self, worker_id: int, reason: str, measured: str, *, restart: bool) -> None:
        if worker_id not in self._known_up:
            return
        self.log.append(f"{reason}, {measured}")
        self.history.append(("lost", worker_id))
        self._known_up.discard(worker_id)
        self.tried.discard(worker_id)
        if restart:
            self._kill(worker_id)
        pause_s = self.losses.lost(worker_id, reason, measured)
        up_at = self.workers[worker_id].up_at
        self.workers[worker_id].up_at = None if up_at is None else max(up_at, self.now + pause_s)

    def finished(self) -> None:
        self.history.append(("finished", -1))
        self.losses.finished()

    def revive(self) -> None:
        for number, worker in self.workers.items():
            if number not in self._known_up and worker.up_at is not None and worker.up_at <= self.now:
                self._known_up.add(number)
                self.history.append(("started", number))
                self.losses.started(number)

    def await_worker(self) -> None:
        self.revive()
        while not self._known_up:
            if all(worker.up_at is None for worker in self.workers.values()):
                raise RolloutError("No rollout worker is left.")
            self._step(self.now + 0.5)
            self.revive()

    # ---------------------------------------------------------------- what happens meanwhile

    def _step(self, end: float) -> bool:
        """The next event before ``end``; False when there is none, with the clock at ``end``."""
        events = [(self._done_at(worker), 1, number) for number, worker in self.workers.items() if worker.queue]
        if self._kills:
            events.append((self._kills[0][0], 0, self._kills[0][1]))
        at, kind, number = min(events, default=(end, 2, -1))
        if at >= end:
            self.now = end
            return False
        self.now = max(self.now, at)
        if kind == 0:
            self._kills.popleft()
            self._kill(number)
        else:
            self._finish_call(number)
        return True

    def _done_at(self, worker: SimulatedWorker) -> float:
        if worker.hangs:
            return float("inf")
        _, order = worker.queue[0]
        ticks, _ = self._played(worker, order)
        return worker.began + self.tick_s * max(ticks, 1e-3)

    def _played(self, worker: SimulatedWorker, order: Order) -> tuple[int, dict[int, tuple[Ticket, int]]]:
        """Ticks the call at the head of the queue takes, and what is held after it (0 ticks left: ended)."""
        held = {} if order.session != worker.session else dict(worker.held)
        held |= {ticket.ticket_id: (ticket, 3 + ticket.ticket_id % 5) for ticket in order.tickets}
        ticks = 0
        while ticks < self.carry_ticks and any(left for _, left in held.values()):
            ticks += 1
            at_work = [number for number, (_, left) in held.items() if left][: self.slots]
            for number in at_work:
                held[number] = (held[number][0], held[number][1] - 1)
            if order.more and sum(1 for _, left in held.values() if left) < self.slots:
                break
        return ticks + LOAD_TICKS * (worker.session == -1), held

    def _finish_call(self, number: int) -> None:
        worker = self.workers[number]
        reference, order = worker.queue[0]
        ticks, held = self._played(worker, order)
        if any(self._kills_its_worker(one, ticket, left) for one, (ticket, left) in held.items()):
            worker.held = held
            self._kill(number, by_chance=False)
            return
        self.slot_ticks += (ticks - LOAD_TICKS * (worker.session == -1)) * self.slots
        worker.session, worker.queue, worker.began = order.session, deque([*worker.queue][1:]), self.now
        done = [ticket for ticket, left in held.values() if not left]
        worker.held = {one: pair for one, pair in held.items() if pair[1]}
        self._answers[reference] = Collected(episodes=tuple(self._episode(ticket) for ticket in done))

    def _kills_its_worker(self, number: int, ticket: Ticket, left: int) -> bool:
        return number in self._poison and left <= 3 + ticket.ticket_id % 5 - 2

    def _kill(self, number: int, *, by_chance: bool = True) -> None:
        worker = self.workers[number]
        if worker.up_at is None or worker.up_at > self.now:
            return
        tickets = {*worker.held, *(ticket.ticket_id for _, order in worker.queue for ticket in order.tickets)}
        if by_chance and len(tickets) == 1:
            self._killed_alone.update(tickets)
            if any(self._killed_alone[ticket_id] > self._spared_after for ticket_id in tickets):
                return
        for reference, _ in worker.queue:
            self._answers[reference] = Loss(reason="its process ended")
        self.workers[number] = replace(
            worker, session=-1, held={}, queue=deque(), up_at=self.now + RESTART_S, hangs=False
        )

    def _episode(self, ticket: Ticket) -> Episode:
        episode = toy_episode(ticket, phi=np.zeros((1, 3), np.float32), actions=[1], rewards=[0.0])
        return replace(episode, seconds=self.tick_s * (3 + ticket.ticket_id % 5))
