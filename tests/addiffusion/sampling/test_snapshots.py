"""What was tried is undone: an episode goes on from a snapshot as if nothing had come after it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from addiffusion.actions import Action
from addiffusion.config import SamplerSection
from addiffusion.errors import SlotError
from addiffusion.sampling.engine import Engine
from tests.addiffusion.sampling.engine_runs import C, R, S, make_engine
from tests.addiffusion.sampling.metered import MeteredBackbone, embedding

L, U, D = Action.LEAP, Action.UNGUIDED, Action.REDRAW
NOISELESS = ("ddim", "dpm++2m", "dpm++3m", "euler", "unipc3", "pndm")


def _engine(solver: str) -> Engine:
    leap_steps = None if solver == "pndm" else 2
    sampler = SamplerSection.model_validate(
        {"solver": solver, "num_steps": 12, "warmup_steps": 2, "finish_steps": 2, "leap_steps": leap_steps}
    )
    return make_engine(MeteredBackbone(), sampler=sampler, slots=2, rows=4)


def _begun(engine: Engine) -> Engine:
    engine.admit(0, embedding=embedding(1), seed=3)
    engine.admit(1, embedding=embedding(2), seed=4)
    return engine


def _follow(engine: Engine, actions: Sequence[Action]) -> None:
    """Take these decisions in slot 0 up to the next one, and continues in slot 1."""
    script = iter(actions)
    while True:
        if 0 in engine.deciding():
            action = next(script, None)
            if action is None:
                return
            engine.act({0: action})
        engine.act({slot: C for slot in engine.deciding() if slot == 1})
        if 0 in engine.done():
            return
        engine.tick()


@pytest.mark.parametrize("solver", [*NOISELESS, "euler_ancestral", "lcm"])
def test_a_stop_that_was_tried_leaves_no_trace(solver: str) -> None:
    engine, plain = _begun(_engine(solver)), _begun(_engine(solver))
    rest = [C, C, C] if solver == "pndm" else [C, L, U]
    _follow(plain, [C, C, *rest, S])
    _follow(engine, [C, C])
    snapshot = engine.snapshot(0)
    _follow(engine, [S])
    assert engine.done() == [0]
    engine.put_back(0, snapshot)
    _follow(engine, [*rest, S])
    assert torch.equal(engine.z0_pred[0], plain.z0_pred[0])
    assert engine.info(0) == plain.info(0)


@pytest.mark.parametrize("solver", NOISELESS)
def test_an_attempt_that_was_given_up_goes_on_where_it_was(solver: str) -> None:
    engine, plain = _begun(_engine(solver)), _begun(_engine(solver))
    rest = [C, C, C] if solver == "pndm" else [C, L, U]
    _follow(plain, [R, C])
    features = plain.middle_features([0])[0].clone()
    before = plain.info(0)
    _follow(engine, [R, C])
    snapshot = engine.snapshot(0)
    _follow(engine, [D, C, C, C])
    assert not torch.equal(engine.z0_pred[0], plain.z0_pred[0])
    spent = engine.info(0)
    engine.bring_back(0, snapshot)
    at = engine.info(0)
    assert (at.step, at.timestep, at.attention_entropy) == (before.step, before.timestep, before.attention_entropy)
    assert (at.nfe, at.network_evals, at.redraws) == (spent.nfe, spent.network_evals, 1), "what was spent stays"
    assert torch.equal(engine.z0_pred[0], plain.z0_pred[0])
    assert torch.equal(engine.middle_features([0])[0], features)
    assert torch.equal(engine.middle_features()[0], features)
    _follow(plain, [*rest, S])
    _follow(engine, [*rest, S])
    assert torch.equal(engine.z0_pred[0], plain.z0_pred[0])
    assert engine.info(0).nfe == spent.nfe + plain.info(0).nfe - before.nfe


def test_the_attention_of_an_earlier_attempt_is_not_kept() -> None:
    engine = _begun(_engine("ddim"))
    _follow(engine, [C])
    snapshot = engine.snapshot(0)
    _follow(engine, [D])
    engine.bring_back(0, snapshot)
    assert [Action(place) for place, can in enumerate(engine.allowed(0)) if not can] == [R]
    with pytest.raises(SlotError, match="Slot 0 can't refine: it has come back to an earlier attempt"):
        engine.act({0: R})
    _follow(engine, [C])
    assert engine.allowed(0)[R]


def test_a_slot_comes_back_only_while_it_waits() -> None:
    engine = _begun(_engine("ddim"))
    _follow(engine, [C])
    snapshot = engine.snapshot(0)
    engine.act({0: D})
    with pytest.raises(SlotError, match="Slot 0 is WARMUP, but this call needs DECIDING"):
        engine.bring_back(0, snapshot)
