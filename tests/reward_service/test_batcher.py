"""Whatever order requests and time come in: nothing is lost, doubled, swapped or late."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from addiffusion.errors import ContractError
from reward_service.batcher import Batch, Batcher, Joiner, Piece

MAX_IMAGES = 5
MAX_WAIT_S = 1.0


class Clock:
    """Time that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Batcher, Clock]:
    clock = Clock()
    return Batcher(max_images=MAX_IMAGES, max_wait_s=MAX_WAIT_S, clock=clock), clock


def rows(batch: Batch | None) -> list[tuple[int, int, int]]:
    assert batch is not None
    return [(piece.request_id, piece.start, piece.stop) for piece in batch.pieces]


def test_a_full_batch_goes_at_once_and_the_rest_waits() -> None:
    batcher, clock = make()
    batcher.add(1, "g", 3)
    assert batcher.next_batch() is None
    batcher.add(2, "g", 4)
    assert rows(batcher.next_batch()) == [(1, 0, 3), (2, 0, 2)]
    assert batcher.next_batch() is None
    clock.now = MAX_WAIT_S
    assert rows(batcher.next_batch()) == [(2, 2, 4)]
    assert batcher.due_in_s() is None


def test_due_in_counts_from_the_oldest_request() -> None:
    batcher, clock = make()
    assert batcher.due_in_s() is None
    batcher.add(1, "g", 1)
    clock.now = 0.75
    batcher.add(2, "h", 1)
    assert batcher.due_in_s() == 0.25
    batcher.add(3, "h", 4)
    assert batcher.due_in_s() == 0.0


def test_groups_never_mix_and_an_overdue_one_goes_before_a_full_younger_one() -> None:
    batcher, clock = make()
    batcher.add(1, "old", 2)
    clock.now = MAX_WAIT_S
    batcher.add(2, "new", MAX_IMAGES)
    assert rows(batcher.next_batch()) == [(1, 0, 2)]
    assert rows(batcher.next_batch()) == [(2, 0, MAX_IMAGES)]


def test_a_dropped_request_takes_no_room() -> None:
    batcher, clock = make()
    batcher.add(1, "g", 4)
    batcher.add(2, "g", 2)
    batcher.drop(1)
    assert batcher.waiting_image_count == 2
    assert batcher.next_batch() is None
    clock.now = MAX_WAIT_S
    assert rows(batcher.next_batch()) == [(2, 0, 2)]
    batcher.drop(2)


def test_an_empty_request_is_refused() -> None:
    batcher, _ = make()
    with pytest.raises(ContractError, match="Request 3 has 0 images"):
        batcher.add(3, "g", 0)


def test_joiner_puts_parts_in_row_order_and_ignores_the_forgotten() -> None:
    joiner = Joiner[str]()
    joiner.expect(1, 3)
    joiner.expect(2, 1)
    assert joiner.put(Piece(request_id=1, start=2, stop=3), "last") is None
    joiner.forget(2)
    assert joiner.put(Piece(request_id=2, start=0, stop=1), "late") is None
    assert joiner.put(Piece(request_id=1, start=0, stop=2), "first") == ["first", "last"]
    assert joiner.put(Piece(request_id=1, start=0, stop=2), "again") is None


class Traffic(RuleBasedStateMachine):
    """Random requests, waits and drops against a plain record of what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher, self.clock = make()
        self.joiner = Joiner[tuple[tuple[int, int], ...]]()
        self.asked: dict[int, tuple[str, int, float]] = {}
        self.dropped: set[int] = set()
        self.answers: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.served_order: dict[str, list[int]] = defaultdict(list)

    @rule(group=st.sampled_from("ab"), count=st.integers(1, 12))
    def ask(self, group: str, count: int) -> None:
        request_id = len(self.asked)
        self.asked[request_id] = (group, count, self.clock.now)
        self.joiner.expect(request_id, count)
        self.batcher.add(request_id, group, count)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        open_ids = sorted(self.asked.keys() - self.answers.keys() - self.dropped)
        if open_ids:
            victim = data.draw(st.sampled_from(open_ids))
            self.dropped.add(victim)
            self.joiner.forget(victim)
            self.batcher.drop(victim)

    @rule()
    def serve(self) -> None:
        due_in_s = self.batcher.due_in_s()
        batch = self.batcher.next_batch()
        assert (batch is not None) == (due_in_s == 0.0)
        if batch is not None:
            self.score(batch)

    def score(self, batch: Batch) -> None:
        assert 1 <= batch.image_count <= MAX_IMAGES
        _, _, oldest_s = self.asked[batch.pieces[0].request_id]
        assert batch.waited_s == self.clock.now - oldest_s
        for piece in batch.pieces:
            assert piece.request_id not in self.dropped
            group, _, _ = self.asked[piece.request_id]
            assert group == batch.group
            self.served_order[group].append(piece.request_id)
            part = tuple((piece.request_id, row) for row in range(piece.start, piece.stop))
            complete = self.joiner.put(piece, part)
            if complete is not None:
                self.answers[piece.request_id].extend(row for part in complete for row in part)

    @invariant()
    def answers_are_exactly_what_was_asked(self) -> None:
        for request_id, answer in self.answers.items():
            assert answer == [(request_id, row) for row in range(self.asked[request_id][1])]

    @invariant()
    def first_come_first_served(self) -> None:
        for order in self.served_order.values():
            assert order == sorted(order)

    def teardown(self) -> None:
        self.clock.now += MAX_WAIT_S
        while (batch := self.batcher.next_batch()) is not None:
            self.score(batch)
        assert self.answers.keys() == self.asked.keys() - self.dropped
        assert self.batcher.waiting_image_count == 0
        assert self.batcher.due_in_s() is None
        self.answers_are_exactly_what_was_asked()


Traffic.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase
