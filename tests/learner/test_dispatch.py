"""Tickets on their way through workers that may be lost at any time: without Ray, and with a simulated clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from contextlib import suppress
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.config import RolloutSection
from addiffusion.errors import RolloutError
from addiffusion.policy import PolicyNetwork
from addiffusion.rollouts import Collected
from learner.calls import Job, Order
from learner.dispatch import Dispatch
from learner.losses import Hazard, Pace
from learner.rollouts import merge
from rollout_workers.worker import Worker
from tests.fakes import ToyBackbone, ToyScoring
from tests.learner.toy import toy_ticket
from tests.learner.toy_pool import SimulatedPool
from tests.rollout_workers.toy_run import HIDDEN, make_config, make_tickets, phi_width

MAX_RESTARTS = 5


def make_dispatch(pool: SimulatedPool, *, timeout_s: float = 60.0, max_reissues: int = 3) -> Dispatch:
    section = RolloutSection(slots=pool.slots, max_reissues=max_reissues, timeout_s=timeout_s)
    pace = Pace(timeout_s=timeout_s)
    return Dispatch(pool, section, Job(), pace=pace, sessions=pool.sessions, clock=pool.clock)


def collect(pool: SimulatedPool, ticket_count: int, **limits: float) -> Collected:
    dispatch = make_dispatch(pool, **limits)  # pyright: ignore[reportArgumentType]
    parts = [dispatch.advance([toy_ticket(number) for number in range(ticket_count)])]
    while dispatch.open:
        parts.append(dispatch.advance())
    return merge(parts)


def ids_of(collected: Collected) -> tuple[list[int], list[int]]:
    """Of episodes, and of failures."""
    return (
        [episode.ticket.ticket_id for episode in collected.episodes],
        [failure.ticket.ticket_id for failure in collected.failed],
    )


def longest_row(history: list[tuple[str, int]]) -> int:
    """Losses in the longest row in which each worker was started after the loss before, and nobody finished."""
    longest, rows = 0, list[tuple[int, int]]()  # (time of a loss, length of the row that ends there)
    started: Counter[int] = Counter()
    for time, (event, worker) in enumerate(history):
        match event:
            case "finished":
                rows.clear()
            case "started":
                started[worker] = time
            case _:
                row = 1 + max((length for at, length in rows if at < started[worker]), default=0)
                rows.append((time, row))
                longest = max(longest, row)
    return longest


@settings(deadline=None, max_examples=200)
@given(
    workers=st.integers(1, 4),
    ticket_count=st.integers(1, 40),
    poison=st.sets(st.integers(0, 39), max_size=2),
    pauses=st.lists(st.floats(0.1, 15.0), max_size=30),
    victims=st.lists(st.integers(0, 3), min_size=30, max_size=30),
)
def test_every_ticket_ends_once_and_only_poison_is_refused(
    workers: int, ticket_count: int, poison: set[int], pauses: list[float], victims: list[int]
) -> None:
    poison = {number for number in poison if number < ticket_count}
    kills = [(sum(pauses[: n + 1]), victims[n] % workers) for n in range(len(pauses))]
    pool = SimulatedPool(workers, poison=poison, kills=kills, max_restarts=MAX_RESTARTS)
    collected = None
    with suppress(RolloutError):
        collected = collect(pool, ticket_count)
    assert (collected is None) == (longest_row(pool.history) > MAX_RESTARTS)
    if collected is None:
        return
    episodes, failed = ids_of(collected)
    assert sorted([*episodes, *failed]) == list(range(ticket_count))
    assert set(failed) == poison
    assert all(failure.final and "alone on its worker" in failure.reason for failure in collected.failed)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.floats(12.0, 20.0), st.integers(0, 2**16))
def test_a_long_run_of_kills_blames_nobody(workers: int, pause_s: float, seed: int) -> None:
    kills = [(pause_s * (n + 1), (seed >> (n % 16)) % workers) for n in range(200)]
    pool = SimulatedPool(workers, kills=kills, max_restarts=8)
    assert ids_of(collect(pool, 150)) == (list(range(150)), [])


def test_one_poison_ticket_costs_few_restarts() -> None:
    pool = SimulatedPool(1, slots=8, poison=[13])
    assert ids_of(collect(pool, 64)) == ([n for n in range(64) if n != 13], [13])
    lost = [event for event, _ in pool.history].count("lost")
    assert lost == 5 + 4, "the 32 tickets of a share are halved to the one, which then is alone four times"


def test_workers_that_finish_nothing_end_the_run_after_longer_and_longer_pauses() -> None:
    pool = SimulatedPool(2, poison=range(40), max_restarts=6)
    with pytest.raises(RolloutError, match=r"restarted 6 times in a row .*its process ended \(\d+ times\)") as caught:
        collect(pool, 40)
    assert caught.value.facts["restarts"] == 6
    assert pool.now > 1 + 2 + 4 + 8 + 16


def test_a_worker_that_is_slow_but_works_is_never_lost() -> None:
    """60 images at 12 s and more each, of which a share takes far longer than ``rollout.timeout_s``."""
    pool = SimulatedPool(1, slots=2, tick_s=6.0)
    assert ids_of(collect(pool, 60, timeout_s=20.0)) == (list(range(60)), [])
    assert pool.now > 600
    assert pool.log == []


def test_what_comes_while_one_worker_can_take_a_call_is_not_all_for_that_one() -> None:
    pool = SimulatedPool(8, slots=2)
    section = RolloutSection(slots=2)
    pace = Pace(timeout_s=60.0)
    dispatch = Dispatch(pool, section, Job(counted=True), pace=pace, sessions=pool.sessions, clock=pool.clock)
    finished = len(dispatch.advance([toy_ticket(number) for number in range(16)]).episodes)
    while not finished:
        finished += len(dispatch.advance().episodes)
    before = pool.slot_ticks
    finished += len(dispatch.advance([toy_ticket(number) for number in range(16, 32)]).episodes)
    while dispatch.open:
        finished += len(dispatch.advance().episodes)
    assert finished == 32
    assert pool.slot_ticks > before
    assert pool.now <= 25, "one worker alone would take 16 tickets of 5 ticks two at a time: 40 s"


class CountedPace(Pace):
    """Notes how often a deadline is asked for."""

    asked_count = 0

    def limit_s(self, ticket_count: int, *, at_once: int) -> float:
        self.asked_count += 1
        return super().limit_s(ticket_count, at_once=at_once)


def test_deadlines_are_looked_at_when_one_can_have_passed_not_by_every_worker_at_every_answer() -> None:
    pool, pace = SimulatedPool(32), CountedPace(timeout_s=600.0)
    section = RolloutSection(slots=2, timeout_s=600.0)
    dispatch = Dispatch(pool, section, Job(), pace=pace, sessions=pool.sessions, clock=pool.clock)
    finished, answers = len(dispatch.advance([toy_ticket(number) for number in range(128)]).episodes), 1
    while dispatch.open:
        finished, answers = finished + len(dispatch.advance().episodes), answers + 1
    assert finished == 128
    assert answers > 64
    assert pace.asked_count <= 32


def test_a_deadline_follows_what_episodes_have_taken() -> None:
    pool = SimulatedPool(1, slots=2, tick_s=1.0)
    dispatch = make_dispatch(pool, timeout_s=5.0)
    finished = len(dispatch.advance([toy_ticket(number) for number in range(30)]).episodes)
    while finished < 20:
        finished += len(dispatch.advance().episodes)
    pool.tick_s = 7.0  # a neighbour has come
    while dispatch.open:
        finished += len(dispatch.advance().episodes)
    assert (finished, pool.log) == (30, [])


def test_a_worker_that_hangs_is_restarted_and_it_is_said_what_was_measured() -> None:
    pool = SimulatedPool(2, slots=2)
    dispatch = make_dispatch(pool, timeout_s=10.0)
    parts = [dispatch.advance([toy_ticket(number) for number in range(40)])]
    while not any(part.episodes for part in parts):
        parts.append(dispatch.advance())
    pool.workers[1].hangs = True
    while dispatch.open:
        parts.append(dispatch.advance())
    assert ids_of(merge(parts)) == (list(range(40)), [])
    (said,) = pool.log
    assert said.startswith("no answer, ")
    assert "s into a call with 8 tickets; this run's episodes took " in said
    assert "s each, the slowest 7 s" in said


def test_slots_do_not_wait_between_calls() -> None:
    """Lengths differ, and stretches end in the middle of episodes: only the last ones leave slots empty."""
    for carry_ticks in (1, 4, 16):
        pool = SimulatedPool(1, slots=8, carry_ticks=carry_ticks)
        collect(pool, 400)
        useful = sum(3 + number % 5 for number in range(400))
        assert useful / pool.slot_ticks > 0.97


class WorkerAtHand:
    """Implements ``learner.calls.Workers`` by one real worker in this process."""

    up: ClassVar = [0]
    tried: ClassVar = {0}
    hazard: ClassVar = Hazard()

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._queue: deque[Order] = deque()

    def submit(self, worker_id: int, order: Order) -> Hashable:
        self._queue.append(order)
        return id(order)

    def answered(self, references: Sequence[Hashable], *, timeout_s: float) -> list[Hashable]:
        return list(references)

    def answer(self, worker_id: int, reference: Hashable) -> Collected:
        order = self._queue.popleft()
        return self._worker.work(order.tickets, session=order.session, sampler=order.job.sampler, more=order.more)

    def lose(self, worker_id: int, reason: str, measured: str, *, restart: bool) -> None:
        raise AssertionError(f"{reason}, {measured}")

    def finished(self) -> None: ...

    def revive(self) -> None: ...

    def await_worker(self) -> None: ...


@pytest.mark.parametrize("carry_ticks", [1, 16])
def test_stretches_cost_no_more_passes_than_one_call_and_give_the_same_episodes(carry_ticks: int) -> None:
    config = make_config(
        rollout={"slots": 8, "carry_ticks": carry_ticks, "timeout_s": 600},
        sampler={"num_steps": 20, "warmup_steps": 2, "finish_steps": 2},
    )
    policy = PolicyNetwork(phi_width(config), HIDDEN)
    weights = {name: value.numpy().copy() for name, value in policy.state_dict().items()}
    tickets, backbones = make_tickets(60, keep_image=False), [ToyBackbone(), ToyBackbone()]
    one, other = (
        Worker(
            config, policy=PolicyNetwork(phi_width(config), HIDDEN), backbone=lambda one=one: one, scoring=ToyScoring
        )
        for one in backbones
    )
    for worker in (one, other):
        worker.set_weights(weights, 0)
    whole = one.collect(tickets)
    pace = Pace(timeout_s=600)
    dispatch = Dispatch(WorkerAtHand(other), config.rollout, Job(), pace=pace, sessions=count(1))
    parts = [dispatch.advance(tickets)]
    while dispatch.open:
        parts.append(dispatch.advance())
    stretches = merge(parts)
    for ours, theirs in zip(stretches.episodes, whole.episodes, strict=True):
        assert ours.ticket == theirs.ticket
        assert ours.logits.tobytes() == theirs.logits.tobytes()
        assert ours.terms.tobytes() == theirs.terms.tobytes()
    assert backbones[1].denoise_calls <= 1.03 * backbones[0].denoise_calls


def test_a_worker_holds_few_tickets_at_a_time() -> None:
    pool = SimulatedPool(1, slots=2)
    dispatch = make_dispatch(pool)
    dispatch.advance([toy_ticket(number) for number in range(100)])
    while dispatch.open:
        (worker,) = pool.workers.values()
        held = {*worker.held, *(ticket.ticket_id for _, order in worker.queue for ticket in order.tickets)}
        assert len(held) <= 4 * pool.slots
        dispatch.advance()


def test_a_worker_that_joins_gets_tickets_at_once() -> None:
    pool = SimulatedPool(2, slots=2)
    pool.workers[1].up_at = 20.0
    pool._known_up.discard(1)
    assert ids_of(collect(pool, 60)) == (list(range(60)), [])
    alone_s = SimulatedPool(1, slots=2)
    collect(alone_s, 60)
    assert pool.now < 0.7 * alone_s.now


def test_what_was_under_way_begins_again_after_other_work() -> None:
    pool = SimulatedPool(2, slots=2)
    dispatch = make_dispatch(pool)
    parts = [dispatch.advance([toy_ticket(number) for number in range(20)]), dispatch.advance()]
    other = make_dispatch(pool)
    others = [other.advance([toy_ticket(number) for number in range(10)])]
    while other.open:
        others.append(other.advance())
    assert ids_of(merge(others)) == (list(range(10)), [])
    dispatch.recall()
    while dispatch.open:
        parts.append(dispatch.advance())
    assert ids_of(merge(parts)) == (list(range(20)), [])
