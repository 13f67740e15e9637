"""What passes cost, the life of a slot, and failures that stay with their episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.config import RefineSection
from addiffusion.errors import ConfigError, SlotError
from addiffusion.sampling.slot import Phase
from tests.addiffusion.sampling.engine_runs import SAMPLER, C, R, S, make_engine, run_one
from tests.addiffusion.sampling.metered import LATENT, MeteredBackbone, embedding

action_lists = st.lists(st.sampled_from((C, C, C, R, S)), min_size=10, max_size=10)


@given(
    scripts=st.lists(action_lists, min_size=1, max_size=5),
    guidance=st.sampled_from((0.0, 3.5)),
    solver=st.sampled_from(("ddim", "dpm++2m", "unipc3")),
)
@settings(max_examples=25, deadline=None)
def test_nfe_is_what_the_network_was_asked_for(scripts: list[list[Action]], guidance: float, solver: str) -> None:
    backbone = MeteredBackbone()
    engine = make_engine(backbone, guidance=guidance, sampler=SAMPLER.model_copy(update={"solver": solver}))
    waiting, running, counted = list(enumerate(scripts, start=1)), dict[int, tuple[int, list[Action]]](), {}
    while waiting or running:
        while waiting and engine.free():
            slot = engine.free()[0]
            running[slot] = waiting.pop(0)
            engine.admit(slot, embedding=embedding(running[slot][0]), seed=slot)
        engine.tick()
        engine.act({slot: running[slot][1][engine.info(slot).step] for slot in engine.deciding()})
        for slot in engine.done():
            tag, script = running.pop(slot)
            counted[tag] = engine.info(slot).nfe
            assert counted[tag] == expected_nfe(script)
            assert engine.info(slot).network_evals == counted[tag] * (2 if guidance > 1 else 1)
            engine.release(slot)
    assert counted == dict(backbone.passes)


def expected_nfe(script: Sequence[Action]) -> int:
    """The rule: 1 for each step, k more for a refine; a stop at i ends with min(m, N - 1 - i) passes."""
    nfe = 2
    for step in range(2, 10):
        nfe += 1
        if script[step] is S:
            return nfe + min(3, 9 - step)
        nfe += 2 if script[step] is R else 0
    return nfe


def test_one_network_call_per_tick_at_one_shape() -> None:
    backbone = MeteredBackbone()
    engine = make_engine(backbone, slots=4)
    run_one(engine, actions=[C, R, S])
    assert backbone.calls == engine.info(0).nfe == 2 + 3 + 2 + 3
    assert backbone.shapes == {(2 * 4, *LATENT)}


def test_an_undecided_slot_waits_at_no_cost_and_loses_nothing() -> None:
    """Its refine still finds the attention of its own step."""
    patient, hasty = make_engine(MeteredBackbone()), make_engine(MeteredBackbone())
    expected = run_one(hasty, tag=2, actions=[C, R, S])
    patient.admit(0, embedding=embedding(2), seed=7)
    patient.admit(1, embedding=embedding(5), seed=8)
    script = iter([C, R, S])
    while 0 not in patient.done():
        patient.tick()
        if patient.phase(0) is Phase.DECIDING:
            before = patient.z0_pred[0], patient.info(0)
            patient.act({1: C} if 1 in patient.deciding() else {})
            patient.tick()
            assert torch.equal(patient.z0_pred[0], before[0])
            assert patient.info(0) == before[1]
            patient.act({0: next(script)})
        patient.act({1: C} if 1 in patient.deciding() else {})
    assert torch.equal(patient.z0_pred[0], expected)


def test_a_pass_that_fails_can_be_tried_again() -> None:
    class Tired(MeteredBackbone):
        def denoise(self, z: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor | None = None) -> Tensor:
            if len(failures) < self.calls:  # every pass fails once
                failures.append(self.calls)
                raise MemoryError
            return super().denoise(z, t, hidden, pooled)

    failures: list[int] = []
    untroubled, engine = make_engine(MeteredBackbone()), make_engine(Tired())
    expected = run_one(untroubled, tag=2, actions=[C, R, S])
    engine.admit(0, embedding=embedding(2), seed=7)
    script = iter([C, R, S])
    while 0 not in engine.done():
        try:
            engine.tick()
        except MemoryError:
            continue
        engine.act({slot: next(script) for slot in engine.deciding()})
    assert len(failures) == engine.info(0).nfe - 1
    assert torch.equal(engine.z0_pred[0], expected)


def test_phases_of_an_episode() -> None:
    engine = make_engine(MeteredBackbone())
    assert (engine.free(), engine.busy) == ([0, 1, 2], False)
    engine.admit(0, embedding=embedding(1), seed=0)
    phases = [engine.phase(0)]
    for action in (R, S):
        while not engine.deciding():
            engine.tick()
            phases.append(engine.phase(0))
        engine.act({0: action})
    while engine.busy:
        engine.tick()
        phases.append(engine.phase(0))
    names = "WARMUP WARMUP STEPPING DECIDING REFINING STEPPING DECIDING FINISHING FINISHING DONE"
    assert [phase.name for phase in phases] == names.split()
    assert (engine.done(), engine.free()) == ([0], [1, 2])
    engine.release(0)
    assert engine.free() == [0, 1, 2]


def test_entropy_and_mask_exist_only_after_a_refine_by_attention() -> None:
    engine = make_engine(MeteredBackbone())
    run_one(engine, actions=[C, C])
    assert (engine.info(0).attention_entropy, engine.refine_mask(0)) == (0.0, None)
    run_one(engine, actions=[C, R], slot=1)
    assert 0.5 < engine.info(1).attention_entropy < 1.0
    engine.release(1)
    run_one(engine, slot=1)
    assert (engine.info(1).attention_entropy, engine.refine_mask(1)) == (0.0, None)


@pytest.mark.parametrize(("mask", "expected"), [("attention", [4, 5, 4]), ("self_attention", [4, 5, 4]), ("grid", [])])
def test_maps_are_computed_for_the_rows_that_refine_and_no_others(mask: Any, expected: list[int]) -> None:
    """With guidance a prompt's own row is in the second half of the batch."""
    backbone = MeteredBackbone()
    engine = make_engine(backbone, refine=RefineSection(mask=mask))
    for slot in range(3):
        engine.admit(slot, embedding=embedding(slot + 1), seed=slot)
    refines = {(2, 1), (3, 2), (5, 1)}
    while engine.busy:
        engine.tick()
        engine.act({at: R if (engine.info(at).step, at) in refines else C for at in engine.deciding()})
    assert backbone.map_rows == expected


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_guidance_scale_that_is_no_scale_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=f"guidance_scale={scale:g} can't be used: give 0 or more"):
        make_engine(MeteredBackbone(), guidance=scale)


def test_a_nan_fails_its_slot_and_no_other() -> None:
    backbone, healthy = MeteredBackbone(broken=9, broken_below=750.0), MeteredBackbone()
    engine = make_engine(backbone)
    engine.admit(0, embedding=embedding(9), seed=1)
    engine.admit(1, embedding=embedding(2), seed=7)
    while engine.busy:
        engine.tick()
        engine.act(dict.fromkeys(engine.deciding(), C))
    reason = "The network returned values that are not finite at step 3 (t = 699), after 4 passes."
    assert (engine.failed(), engine.done()) == ({0: reason}, [1])
    assert torch.equal(engine.z0_pred[1], run_one(make_engine(healthy), tag=2, slot=1))
    assert engine.decode().shape == (3, 8, 8, 3)
    engine.release(0)
    assert engine.failed() == {}
    assert torch.equal(run_one(engine, tag=2, slot=0), engine.z0_pred[1])


def test_illegal_calls_are_refused_and_change_nothing() -> None:
    engine = make_engine(MeteredBackbone())
    for call in (engine.tick, lambda: engine.release(0), lambda: engine.info(0), lambda: engine.phase(3)):
        with pytest.raises(SlotError):
            call()
    for slot in (0, 1):
        engine.admit(slot, embedding=embedding(1), seed=slot)
    with pytest.raises(SlotError, match="Slot 0 is WARMUP, but this call needs EMPTY"):
        engine.admit(0, embedding=embedding(2), seed=0)
    while not engine.deciding():
        engine.tick()
    with pytest.raises(SlotError, match="Slot 2 is EMPTY, but this call needs DECIDING"):
        engine.act({0: S, 2: C})
    assert engine.deciding() == [0, 1]
    with pytest.raises(SlotError, match="A tick would do nothing"):
        engine.tick()


def test_latents_are_float32_and_a_kept_prediction_never_changes() -> None:
    engine = make_engine(MeteredBackbone())
    engine.admit(0, embedding=embedding(1), seed=0)
    engine.tick()
    kept, copy = engine.z0_pred, engine.z0_pred.clone()
    engine.tick()
    assert kept.dtype == torch.float32
    assert torch.equal(kept, copy)
    assert not torch.equal(kept, engine.z0_pred)


@pytest.mark.parametrize("ticks", range(1, 8))
def test_an_episode_given_up_anywhere_is_not_noticed_and_its_slot_is_as_new(ticks: int) -> None:
    """In warm-up, between a decision and the tick that carries it out, within a refine, within a finish."""
    engine = make_engine(MeteredBackbone())
    engine.admit(0, embedding=embedding(3), seed=3)
    engine.admit(1, embedding=embedding(2), seed=7)
    actions = iter([R, S, C, C])
    for _ in range(ticks):
        engine.tick()
        engine.act({slot: next(actions, C) if slot == 0 else C for slot in engine.deciding()})
    engine.give_up(0)
    assert 0 in engine.free()
    engine.admit(0, embedding=embedding(2), seed=7)
    while engine.busy:
        engine.tick()
        engine.act(dict.fromkeys(engine.deciding(), C))
    assert torch.equal(engine.z0_pred[0], engine.z0_pred[1])
    assert torch.equal(engine.z0_pred[0], run_one(make_engine(MeteredBackbone()), tag=2, slot=1))
    with pytest.raises(SlotError, match="Slot 2 is EMPTY"):
        engine.give_up(2)
