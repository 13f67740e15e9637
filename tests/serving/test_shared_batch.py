"""One batch of all requests: fairness, cancellations, deadlines, errors. Slots and rows are counted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from addiffusion.actions import Action
from addiffusion.setting import Setting
from serving.fair_queue import FairQueue
from serving.messages import Cancel, Drawn, Failed, Steer
from tests.serving.toy_server import (
    STEPS,
    WARMUP,
    SlowBackbone,
    always,
    drained,
    shared_batch,
    submitted,
    tick,
    toy_model,
)

# ---------------------------------------------------------------- fairness

Sizes = st.lists(st.integers(1, 10), min_size=1, max_size=8)


@given(Sizes, st.data())
def test_between_two_images_of_a_request_every_other_that_waits_has_a_turn(
    sizes: list[int], data: st.DataObject
) -> None:
    queue, waiting, taken = FairQueue(), dict[str, int](), list[tuple[str, set[str]]]()
    arriving = [(str(number), size) for number, size in enumerate(sizes)]
    while arriving or waiting:
        if arriving and (not waiting or data.draw(st.booleans())):
            name, size = arriving.pop(0)
            queue.put(name, list(range(size)))
            waiting[name] = size
            continue
        name, _ = queue.take()
        taken.append((name, set(waiting)))
        waiting[name] -= 1
        if not waiting[name]:
            del waiting[name]
    assert len(queue) == 0
    for name in {name for name, _ in taken}:
        turns = [place for place, (other, _) in enumerate(taken) if other == name]
        for first, second in pairwise(turns):
            between = [other for other, _ in taken[first + 1 : second]]
            assert set(between) >= taken[first][1] - {name}
            assert len(between) <= len(sizes)  # nobody is passed over for long, whatever comes after


def test_ten_images_do_not_hold_back_ten_requests_for_one() -> None:
    shared = shared_batch(toy_model(slots=2))
    ten = submitted(shared, "ten", images=10)
    tick(shared)
    ones = [submitted(shared, f"one {number}") for number in range(10)]
    while not all(one.of(Drawn) for one in ones):
        tick(shared)
    assert len(ten.of(Drawn)) <= 4
    drained(shared)
    assert len(ten.of(Drawn)) == 10


# ---------------------------------------------------------------- settings of their own


def test_each_image_is_the_one_drawn_alone() -> None:
    """Whatever shares the batch, to rounding: passes have as many rows as they need."""
    changes = {
        "plain": {},
        "steps": {"setting": Setting(num_steps=5)},
        "solver": {"setting": Setting(solver="dpm++2m", guidance_scale=4.0)},
        "unguided": {"setting": Setting(guidance_scale=1.0)},
        "away": {"setting": Setting(negative_prompt="a dark scene")},
        "full": {"full_run": True},
    }
    together = shared_batch(toy_model(slots=4))
    told = {name: submitted(together, name, images=2, **own) for name, own in changes.items()}
    drained(together)
    for name, own in changes.items():
        alone = shared_batch(toy_model(slots=4))
        by_itself = submitted(alone, name, images=2, **own)
        drained(alone)
        for first, second in zip(told[name].of(Drawn), by_itself.of(Drawn), strict=True):
            assert isinstance(first, Drawn)
            assert isinstance(second, Drawn)
            assert (first.nfe, first.cost, first.actions) == (second.nfe, second.cost, second.actions)
            assert np.abs(first.pixels.astype(int) - second.pixels).max() <= 1
    (unguided, _) = told["unguided"].of(Drawn)
    assert isinstance(unguided, Drawn)
    assert (unguided.cost, unguided.full_cost) == (STEPS / 2, STEPS / 2)


# ---------------------------------------------------------------- cancellations


def test_a_cancelled_request_frees_its_rows_at_the_next_tick() -> None:
    backbone = SlowBackbone(0)
    shared = shared_batch(toy_model(backbone=backbone, slots=4))
    gone, stays = submitted(shared, "gone", images=3), submitted(shared, "stays")
    for _ in range(3):
        tick(shared)
    assert (backbone.rows[-1], shared.rows_wanted) == (8, 8)
    shared.cancel(Cancel(request_id="gone"))
    assert shared.rows_wanted == 2
    tick(shared)
    assert backbone.rows[-1] == 2
    drained(shared)
    assert not gone.of(Drawn)
    assert not gone.of(Failed)
    assert len(stays.of(Drawn)) == 1


def test_neighbours_do_not_notice_a_cancelled_image() -> None:
    def image(*, company: bool) -> np.ndarray:
        model = toy_model(slots=2, act=always(Action.REFINE))
        shared = shared_batch(model)
        if company:
            submitted(shared, "gone")
        kept = submitted(shared, "kept", images=2)
        for _ in range(4):
            tick(shared)
        if company:
            shared.cancel(Cancel(request_id="gone"))
        drained(shared)
        return np.stack([one.pixels for one in kept.of(Drawn) if isinstance(one, Drawn)])

    assert np.abs(image(company=True).astype(int) - image(company=False)).max() <= 1


def test_an_interrupted_request_is_told_as_it_is() -> None:
    shared = shared_batch(toy_model(slots=2))
    told = submitted(shared, "a", images=3)
    tick(shared)
    shared.cancel(Cancel(request_id="a", as_they_are=True))
    assert [(one.nfe, one.whole) for one in told.of(Drawn) if isinstance(one, Drawn)] == [(1, False)] * 2
    assert len(told.of(Failed)) == 1
    assert not shared.busy


def test_steering_overrides_the_policy() -> None:
    shared = shared_batch(toy_model(act=always(Action.STOP)))
    free, further = submitted(shared, "free"), submitted(shared, "further")
    tick(shared)
    shared.steer(Steer(request_id="further", image=0, action="continue"))
    drained(shared)
    (first,), (second,) = free.of(Drawn), further.of(Drawn)
    assert isinstance(first, Drawn)
    assert isinstance(second, Drawn)
    assert (first.nfe, second.nfe) == (WARMUP + 2, STEPS)
    shared = shared_batch(toy_model(act=always(Action.CONTINUE)))
    stopped = submitted(shared, "stopped")
    shared.steer(Steer(request_id="stopped", image=0, action="stop"))
    drained(shared)
    assert [one.actions for one in stopped.of(Drawn) if isinstance(one, Drawn)] == [(Action.STOP,)]
