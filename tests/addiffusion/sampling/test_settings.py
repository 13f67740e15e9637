"""Every image has its own setting, in one batch with any others; and none costs more than it may."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import ConfigError, SlotError
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.schedules import Schedules
from addiffusion.setting import Setting
from tests.addiffusion.sampling.engine_runs import C, R, S, make_engine
from tests.addiffusion.sampling.metered import MeteredBackbone, embedding

OWN = SamplerSection(num_steps=10, warmup_steps=2, finish_steps=3)
SETTINGS = (
    Setting(),
    Setting(num_steps=5, guidance_scale=1.0),
    Setting(solver="dpm++2m", num_steps=7, guidance_scale=7.5, finish_steps=0),
    Setting(solver="unipc3", spacing="linspace"),
    Setting(solver="euler", num_steps=12, finish_steps=1),
)
SCRIPTS = ([C, R, S], [C, C, C, C], [R, C, S, S], [C, C, R, C, S], [S])


def finished(engine: Engine, cast: dict[int, int]) -> dict[int, Tensor]:
    """Run the episodes of these numbers together, a slot each, and release the slots."""
    place = dict(enumerate(cast))
    for slot, number in place.items():
        negative = embedding(9) if number == 2 else None
        engine.admit(slot, embedding=embedding(number + 1), seed=number, negative=negative, setting=SETTINGS[number])
    scripts = {slot: iter([*SCRIPTS[number], *[S] * 20]) for slot, number in place.items()}
    while engine.busy:
        engine.tick()
        engine.act({slot: next(scripts[slot]) for slot in engine.deciding()})
    found = {number: engine.z0_pred[slot].clone() for slot, number in place.items()}
    for slot in place:
        engine.release(slot)
    return found


@pytest.fixture(scope="module")
def schedules() -> Schedules:
    """Laid out once: each takes a second on a slow machine."""
    return Schedules(MeteredBackbone(), OWN, RefineSection())


@pytest.fixture(scope="module")
def solo() -> dict[int, Tensor]:
    """Each image by an engine of one slot that is configured with its setting."""
    found: dict[int, Tensor] = {}
    for number, setting in enumerate(SETTINGS):
        scale = setting.guidance_scale or 3.5
        engine = make_engine(MeteredBackbone(), sampler=setting.sampler(OWN), slots=1, guidance=scale)
        negative = embedding(9) if number == 2 else None
        engine.admit(0, embedding=embedding(number + 1), seed=number, negative=negative)
        script = iter([*SCRIPTS[number], *[S] * 20])
        while engine.busy:
            engine.tick()
            engine.act({slot: next(script) for slot in engine.deciding()})
        found[number] = engine.z0_pred[0]
    return found


@given(order=st.permutations(range(len(SETTINGS))), rows=st.integers(3, 10))
@settings(max_examples=8, deadline=None)
def test_an_image_of_a_mixed_batch_is_the_one_drawn_alone_at_its_setting(
    order: list[int], rows: int, schedules: Schedules, solo: dict[int, Tensor]
) -> None:
    def engine() -> Engine:
        return Engine(
            MeteredBackbone(), OWN, RefineSection(), slots=5, guidance_scale=3.5, rows=rows, schedules=schedules
        )

    mixed = finished(engine(), dict.fromkeys(order, 0))
    for number, latent in mixed.items():
        assert torch.equal(latent, finished(engine(), {number: 0})[number]), "the same R: bit for bit"
        torch.testing.assert_close(latent, solo[number], rtol=1e-5, atol=1e-5 * float(latent.abs().max()))


def test_cost_is_what_the_network_computed() -> None:
    engine = make_engine(MeteredBackbone(), sampler=OWN, slots=2, rows=3)
    engine.admit(0, embedding=embedding(1), seed=0)
    engine.admit(1, embedding=embedding(2), seed=1, guidance_scale=1.0)
    while engine.busy:
        engine.tick()
        engine.act(dict.fromkeys(engine.deciding(), C))
    guided, unguided = engine.info(0), engine.info(1)
    assert (guided.nfe, guided.network_evals, guided.cost) == (10, 20, 10.0)
    assert (unguided.nfe, unguided.network_evals, unguided.cost) == (10, 10, 5.0)
    never = make_engine(MeteredBackbone(), sampler=OWN, slots=1, guidance=1.0)
    never.admit(0, embedding=embedding(1), seed=0)
    never.tick()
    assert never.info(0).cost == never.info(0).nfe == 1


@given(
    caps=st.lists(st.floats(3.5, 20), min_size=3, max_size=3),
    scale=st.sampled_from((1.0, 3.5)),
    finish_steps=st.integers(0, 3),
    chosen=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_no_random_policy_ever_exceeds_the_cap(
    caps: list[float], scale: float, finish_steps: int, chosen: Any, schedules: Schedules
) -> None:
    engine = Engine(MeteredBackbone(), OWN, RefineSection(), slots=3, guidance_scale=3.5, rows=4, schedules=schedules)
    least = (3 + finish_steps) * (1 if scale > 1 else 0.5)
    setting = [Setting(guidance_scale=scale, max_cost=max(cap, least), finish_steps=finish_steps) for cap in caps]
    for slot in range(3):
        engine.admit(slot, embedding=embedding(slot + 1), seed=slot, setting=setting[slot])
    while engine.busy:
        engine.tick()
        for slot in engine.deciding():
            allowed = [action for action, fine in zip(Action, engine.allowed(slot), strict=True) if fine]
            assert Action.STOP in allowed, "an end can always be paid"
            for action in set(Action) - set(allowed):
                with pytest.raises(SlotError, match=f"Slot {slot} can't {action.name.lower()}"):
                    engine.act({slot: action})
            engine.act({slot: chosen.choice(allowed)})
    assert engine.done() == [0, 1, 2]
    for slot in range(3):
        assert engine.info(slot).cost <= (setting[slot].max_cost or 0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"num_steps": 1}, "The setting num_steps=1 can't be used: give 2 or more"),
        ({"guidance_scale": float("nan")}, "The setting guidance_scale=nan can't be used: give 0 or more"),
        ({"finish_steps": -1}, "The setting finish_steps=-1 can't be used"),
        ({"num_steps": 2}, "num_steps=2 leaves no decision after sampler.warmup_steps=2"),
        ({"max_cost": 5.5}, "max_cost=5.5 is less than the 6 that warm-up, first decision and finish of an image cost"),
        ({"solver": "flow_euler"}, "sampler.solver=flow_euler can't sample this model"),
    ],
)
def test_a_setting_that_no_image_can_have_is_refused_in_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    engine = make_engine(MeteredBackbone(), sampler=OWN)
    with pytest.raises(ConfigError, match=sentence):
        engine.admit(0, embedding=embedding(1), seed=0, setting=Setting(**wrong))
    assert engine.free() == [0, 1, 2]
