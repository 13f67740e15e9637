"""Deadlines, a full queue, and errors of one image and of the whole engine."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.actions import Action
from addiffusion.metrics import NoMeters
from addiffusion.observation.scalars import log_price
from addiffusion.setting import Setting
from serving.errors import DeadlineError, ImageError, OverloadedError, RefusedError
from serving.limits import Limits
from serving.loop import EngineLoop
from serving.messages import Accepted, Cancel, Drawn, Failed, Refused
from serving.shared_batch import SharedBatch
from tests.fakes import DIVERGENT
from tests.serving.toy_server import STEPS, SlowBackbone, Told, drained, order, shared_batch, submitted, tick, toy_model


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self.now, self.tick_s = 0.0, tick_s

    def __call__(self) -> float:
        return self.now


class ClockedBackbone(SlowBackbone):
    """Each pass takes so long by the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(0)
        self.clock = clock

    def denoise(self, z, t, hidden, pooled=None):
        self.clock.now += self.clock.tick_s
        return super().denoise(z, t, hidden, pooled)


# ---------------------------------------------------------------- deadlines, overload, errors


def hasty(price_limit: float):
    """Stops where the price is above the limit; latent phi shows its logarithm."""
    limit = float(log_price(price_limit))

    def act(phi: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(phi), 3), np.float32)
        shown = phi[:, -2]
        logits[np.arange(len(phi)), np.where(shown > limit, Action.STOP, Action.CONTINUE)] = 1
        return logits

    return act


def test_the_price_rises_as_the_deadline_nears_and_the_image_is_done() -> None:
    clock = Clock(tick_s=1.0)
    model = toy_model(backbone=ClockedBackbone(clock), act=hasty(0.05))
    shared = shared_batch(model, clock=clock)
    submitted(shared, "pace")
    drained(shared)
    calm, pressed = submitted(shared, "calm", deadline_s=100.0), submitted(shared, "pressed", deadline_s=STEPS - 0.5)
    drained(shared)
    (first,), (second,) = calm.of(Drawn), pressed.of(Drawn)
    assert isinstance(first, Drawn)
    assert isinstance(second, Drawn)
    assert (first.nfe, first.c_nfe) == (STEPS, 0.04)
    assert second.nfe < STEPS
    assert second.c_nfe > 0.04
    assert second.seconds <= STEPS - 0.5


def test_only_what_cannot_be_met_fails() -> None:
    clock = Clock(tick_s=1.0)
    shared = shared_batch(toy_model(backbone=ClockedBackbone(clock), slots=1), clock=clock)
    submitted(shared, "pace")
    drained(shared)
    impossible = submitted(shared, "impossible", deadline_s=2.0)
    (refused,) = impossible.outcomes
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, DeadlineError)
    long, behind, patient = (
        submitted(shared, "long", full_run=True),
        submitted(shared, "behind", deadline_s=STEPS + 1.0),
        submitted(shared, "patient", deadline_s=100.0),
    )
    drained(shared)
    assert [len(one.of(Drawn)) for one in (long, behind, patient)] == [1, 0, 1]
    (failed,) = behind.of(Failed)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, DeadlineError)


def test_a_full_queue_says_when_to_come_again() -> None:
    shared = shared_batch(toy_model(slots=1), Limits(waiting_images=3))
    taken = [submitted(shared, str(number)) for number in range(3)]
    (refused,) = submitted(shared, "late").outcomes
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, OverloadedError)
    assert refused.error.facts["retry_after_s"] >= 1
    drained(shared)
    assert all(len(one.of(Drawn)) == 1 for one in taken)
    (never,) = submitted(shared, "never", images=4).outcomes
    assert isinstance(never, Refused)
    assert isinstance(never.error, RefusedError)


def test_values_that_are_not_finite_fail_their_own_request_alone() -> None:
    shared = shared_batch(toy_model(slots=4))
    poisoned = submitted(shared, "poisoned", images=2, prompt=f"a {DIVERGENT} scene")
    healthy = submitted(shared, "healthy", images=3)
    drained(shared)
    (failed,) = poisoned.of(Failed)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ImageError)
    assert len(healthy.of(Drawn)) == 3


def test_a_setting_that_cannot_be_drawn_is_refused_before_anything_waits() -> None:
    shared = shared_batch(toy_model())
    for setting in (Setting(num_steps=2), Setting(max_cost=1.0), Setting(solver="flow_euler")):
        (refused,) = submitted(shared, "x", setting=setting).outcomes
        assert isinstance(refused, Refused)
        assert isinstance(refused.error, RefusedError)
    assert not shared.busy


def test_many_schedules_do_not_pile_up() -> None:
    shared = shared_batch(toy_model(slots=2), Limits(schedules=3))
    told = [submitted(shared, str(steps), setting=Setting(num_steps=steps)) for steps in range(3, 11)]
    drained(shared)
    assert all(len(one.of(Drawn)) == 1 for one in told)
    assert shared._batch.engine.schedule_count <= 3 + 1


# ---------------------------------------------------------------- nothing leaks, everything is answered once

Step = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 5)),
    st.tuples(st.just("poison"), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 12)),
    st.tuples(st.just("interrupt"), st.integers(0, 12)),
    st.tuples(st.just("fault"), st.just(0)),
    st.tuples(st.just("tick"), st.integers(1, 4)),
)


class Fault(SlowBackbone):
    """Its next pass fails, once."""

    def __init__(self) -> None:
        super().__init__(0)
        self.broken = False

    def denoise(self, z, t, hidden, pooled=None):
        if self.broken:
            self.broken = False
            raise RuntimeError("a cosmic ray")
        return super().denoise(z, t, hidden, pooled)


class Requests(SharedBatch):
    """A shared batch that is driven by steps, and everything it has told."""

    def __init__(self) -> None:
        self.backbone = Fault()
        model = toy_model(backbone=self.backbone, slots=3)
        limits = Limits(waiting_images=12)
        super().__init__(model, limits=limits, meters=NoMeters(), clock=time.monotonic)
        self.told: list[Told] = []
        self.called_off: set[str] = set()

    def step(self, kind: str, count: int) -> None:
        match kind:
            case "submit" | "poison":
                text = f"a {DIVERGENT} scene" if kind == "poison" else "a scene"
                self.told.append(submitted(self, str(len(self.told)), images=count, prompt=text))
            case "cancel" | "interrupt":
                self.cancel(Cancel(request_id=str(count), as_they_are=kind == "interrupt"))
                self.called_off.add(str(count))
            case "fault":
                self.backbone.broken = True
            case _:
                self.ticks(count)

    def ticks(self, count: int) -> None:
        for _ in range(count):
            try:
                tick(self)
            except RuntimeError:
                self.begin_again("a cosmic ray", slots=3)

    def check(self) -> None:
        assert (len(self._batch.engine.free()), len(self._batch.episodes), len(self._waiting)) == (3, 0, 0)
        for one in self.told:
            drawn = [outcome.image for outcome in one.outcomes if isinstance(outcome, Drawn)]
            ends = len(one.of(Failed)) + len(one.of(Refused))
            assert len(set(drawn)) == len(drawn)
            whole = len(drawn) == len(one.order.seeds) and not ends
            assert whole or ends == 1 or (one.order.request_id in self.called_off and ends == 0)
            assert isinstance(one.outcomes[0], Accepted | Refused)
            assert not any(isinstance(outcome, Failed | Refused) for outcome in one.outcomes[:-1])


@settings(max_examples=12, deadline=None)
@given(st.lists(Step, min_size=1, max_size=25))
def test_every_request_is_answered_exactly_once_and_no_slot_leaks(steps: list[tuple[str, int]]) -> None:
    requests = Requests()
    for kind, count in steps:
        requests.step(kind, count)
    while requests.busy:
        requests.ticks(1)
    requests.check()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a cosmic ray")])
def test_images_begin_again_after_an_error_of_the_engine(error: Exception) -> None:
    class Once(SlowBackbone):
        def denoise(self, z, t, hidden, pooled=None):
            self.rows.append(len(z))
            if len(self.rows) == 3:
                raise error
            return super().denoise(z, t, hidden, pooled)

    loop = EngineLoop(toy_model(backbone=Once(0), slots=4))
    told = Told(order("a", images=4))
    loop.send(told.message())
    loop.start()
    assert loop.close(within_s=20)
    assert len(told.of(Drawn)) == 4
    assert loop._shared.slots == (2 if isinstance(error, torch.OutOfMemoryError) else 4)
