"""Leap, unguided and redraw inside the engine: equal to diffusers' own runs, masked where they can't be taken."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.solvers import solver_of
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.config.sampling import NOISY_SOLVERS
from addiffusion.errors import ConfigError, SlotError
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.schedules import Schedules
from addiffusion.seeds import generator
from addiffusion.setting import Setting
from tests.addiffusion.sampling.engine_runs import C, R, S, make_engine, run_one
from tests.addiffusion.sampling.metered import LATENT, MeteredBackbone, embedding, field

L, U, D = Action.LEAP, Action.UNGUIDED, Action.REDRAW
STEPS = 20
PATHS = {2: [C, L, L, *[C] * 9, L], 4: [C, L]}
"""Decisions by leap_steps; the first path leaps twice in a row, and onto the last point."""


def make_sampler(**options: Any) -> SamplerSection:
    return SamplerSection.model_validate({"num_steps": STEPS, "warmup_steps": 2, "finish_steps": 0, **options})


def points_of(path: Sequence[Action], leap_steps: int) -> list[int]:
    """Schedule points that are visited."""
    points = [0, 1, 2]
    script = iter(path)
    while points[-1] < STEPS - 1:
        points.append(points[-1] + (leap_steps if next(script, C) is L else 1))
    return points


def on_points(scheduler: Any, points: Sequence[int]) -> Any:
    """A fresh diffusers scheduler with this schedule."""
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps[list(points)]
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigmas = scheduler.sigmas[list(points)]
        scheduler.timesteps, scheduler.sigmas = times, torch.cat([sigmas, torch.zeros(1)])
    elif isinstance(scheduler, EulerDiscreteScheduler):
        scheduler.set_timesteps(timesteps=times.tolist())
    elif hasattr(scheduler, "sigmas"):
        scheduler.sigmas = torch.cat([scheduler.sigmas[list(points)], scheduler.sigmas[-1:]])
        scheduler.timesteps, scheduler.num_inference_steps = times, len(times)
    else:
        scheduler.timesteps, scheduler.num_inference_steps = times, len(times)
    return scheduler


def diffusers_run(scheduler: Any, guidance: Sequence[float], z: Tensor, noise: torch.Generator | None = None) -> Tensor:
    """The clean prediction of the last step, each step guided by a scale of its own."""
    clean = z
    z = z * getattr(scheduler, "init_noise_sigma", 1.0)
    for index, (t, scale) in enumerate(zip(scheduler.timesteps, guidance, strict=True)):
        if isinstance(scheduler, DDIMScheduler) and index + 1 < len(scheduler.timesteps):  # its only way to be told
            scheduler.num_inference_steps = 1000 // int(t - scheduler.timesteps[index + 1])
        scaled = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        cond, uncond = (field(scaled, t.reshape(1).float(), torch.tensor([tag])) for tag in (1.0, 0.0))
        u = uncond + scale * (cond - uncond)
        result = scheduler.step(u, t, z, **({} if noise is None else {"generator": noise}))
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            clean = z - scheduler.sigmas[index] * u
        else:
            told = getattr(result, "pred_original_sample", getattr(result, "denoised", None))
            clean = scheduler.model_outputs[-1] if told is None else told
        z = result.prev_sample
    return clean[0]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def first_noise(seed: int = 7) -> Tensor:
    return torch.randn(1, *LATENT, generator=generator(seed, "latent"))


@pytest.mark.parametrize("leap_steps", [2, 4])
@pytest.mark.parametrize(
    "solver", ["ddim", "dpm++2m", "dpm++3m", "euler", "unipc2", "unipc3", "flow_euler", *NOISY_SOLVERS]
)
def test_a_leap_is_diffusers_own_run_on_that_schedule(solver: str, leap_steps: int) -> None:
    """Multistep history included, as diffusers does it."""
    own = FlowMatchEulerDiscreteScheduler(shift=3.0) if solver == "flow_euler" else MeteredBackbone().scheduler
    sampler, path = make_sampler(solver=solver, leap_steps=leap_steps), PATHS[leap_steps]
    engine = make_engine(MeteredBackbone(scheduler=own), sampler=sampler)
    actual = run_one(engine, actions=path)
    points = points_of(path, leap_steps)
    assert engine.info(0).nfe == len(points) == STEPS - (leap_steps - 1) * path.count(L)
    noise = generator(7, "solver") if solver in NOISY_SOLVERS else None
    scheduler = on_points(solver_of(own, sampler), points)
    assert_close(actual, diffusers_run(scheduler, [3.5] * len(points), first_noise(), noise))


def test_unguided_passes_are_diffusers_with_guidance_off_there() -> None:
    backbone, sampler = MeteredBackbone(), make_sampler(solver="dpm++2m", finish_steps=3)
    engine = make_engine(backbone, sampler=sampler)
    actual = run_one(engine, actions=[C, U, U, C, U])
    guidance = [3.5] * STEPS
    for index in (4, 5, 7):
        guidance[index] = 1.0
    expected = diffusers_run(on_points(solver_of(backbone.scheduler, sampler), range(STEPS)), guidance, first_noise())
    assert_close(actual, expected)
    info = engine.info(0)
    assert (info.nfe, info.network_evals, info.cost) == (STEPS, 2 * STEPS - 3, STEPS - 1.5)


@pytest.mark.parametrize(
    ("scale", "path"),
    [
        pytest.param(None, [C, C, S], id="guided"),
        pytest.param(1.0, [C, C, S], id="never guided"),
        pytest.param(None, [R, C, R, S], id="refine"),
        pytest.param(None, [C, L, L, C], id="leap, to the end"),
        pytest.param(None, [U, C, U, U, S], id="unguided"),
        pytest.param(None, [C, D, C, D, S], id="redraw"),
        pytest.param(None, [U, L, R, D, U, S], id="all of them"),
    ],
)
def test_cost_is_the_rows_that_went_through_the_network(scale: float | None, path: list[Action]) -> None:
    """Counted by the network: rows that lead to the prompt, and rows that lead away from its negative one."""
    backbone = MeteredBackbone()
    engine = make_engine(backbone, sampler=make_sampler(leap_steps=2, finish_steps=3), slots=2, rows=4)
    engine.admit(0, embedding=embedding(1), negative=embedding(9), guidance_scale=scale, seed=7)
    engine.admit(1, embedding=embedding(2), seed=8)
    script = iter(path)
    while engine.busy:
        engine.tick()
        engine.act({slot: next(script, C) if slot == 0 else C for slot in engine.deciding()})
    info = engine.info(0)
    assert info.network_evals == backbone.passes[1] + backbone.passes[9]
    assert info.cost == info.network_evals / 2
    assert (info.cost == info.nfe) == (backbone.passes[9] == backbone.passes[1])


def test_a_redraw_is_a_fresh_image_of_the_next_noise() -> None:
    sampler = make_sampler(solver="unipc3", finish_steps=3)
    engine = make_engine(MeteredBackbone(), sampler=sampler)
    actual = run_one(engine, actions=[C, C, D, C, D, C, S])
    fresh = make_engine(MeteredBackbone(), sampler=sampler)
    noise = torch.randn(LATENT, generator=generator(7, "latent", 2))
    fresh.admit(0, embedding=embedding(1), seed=3, noise=noise)
    script = iter([C, S])
    while fresh.busy:
        fresh.tick()
        fresh.act({slot: next(script) for slot in fresh.deciding()})
    assert torch.equal(actual, fresh.z0_pred[0])
    info = engine.info(0)
    assert (info.redraws, info.nfe) == (2, 5 + 4 + fresh.info(0).nfe), "what was spent counts"


def test_guidance_that_changes_leaves_an_unguided_pass_and_the_cap_alone() -> None:
    engine = make_engine(MeteredBackbone(), sampler=make_sampler(max_cost=8, finish_steps=0))
    engine.admit(0, embedding=embedding(1), seed=0)
    for _ in range(3):
        engine.tick()
    engine.act({0: U})
    engine.set_guidance_scale(0, 1.0)
    while engine.busy:
        engine.tick()
        engine.act({slot: C if engine.allowed(slot)[C] else S for slot in engine.deciding()})
    assert engine.info(0).nfe == 3 + 1 + 4, "what was left of 8 after 3.5: 4 passes"


def test_what_can_not_be_taken_is_masked_and_refused_in_one_sentence() -> None:
    engine = make_engine(MeteredBackbone(), sampler=make_sampler(num_steps=6, leap_steps=2, max_redraws=1))
    engine.admit(0, embedding=embedding(1), seed=0)
    engine.admit(1, embedding=embedding(1), seed=0, guidance_scale=1.0)
    for _ in range(3):
        engine.tick()
    assert engine.allowed(0) == (True,) * 6
    assert not engine.allowed(1)[U]
    with pytest.raises(SlotError, match="Slot 1 can't unguided: no guided pass follows"):
        engine.act({1: U})
    engine.act({0: D})
    while engine.deciding() != [0, 1]:
        engine.tick()
    with pytest.raises(SlotError, match=r"can't redraw: it has begun again 1 times, which is sampler.max_redraws"):
        engine.act({0: D})
    engine.act({0: L})
    engine.tick()
    assert engine.info(0).step == 4
    with pytest.raises(SlotError, match=r"can't leap: .* goes over the end of the schedule"):
        engine.act({0: L})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"solver": "pndm", "leap_steps": 2}, "leap_steps needs a solver with steps of any length, and pndm has only"),
        ({"solvers": ["ddim", "pndm"], "leap_steps": 2}, "pndm has only equal ones: choose another solver"),
        ({"max_cost": 2.5}, "max_cost must be at least 3"),
        ({"num_steps_range": (5, 20), "max_cost_share": 0.5}, "max_cost_share must be at least 0.6: .* of 5 steps"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        make_sampler(**wrong)


def test_a_pipelines_own_solver_that_does_not_fit_is_refused() -> None:
    engine = make_engine(MeteredBackbone(), sampler=make_sampler(leap_steps=2))
    with pytest.raises(ConfigError, match=r"PNDMScheduler has only equal ones: choose another sampler.solver"):
        engine.admit(0, embedding=embedding(1), seed=0, setting=Setting(solver="pndm"))


def test_a_redraw_has_to_pay_for_an_attempt_as_long_as_the_one_it_gives_up() -> None:
    """One that could not would have to stop before anything is seen of it."""
    steps_taken, finish = 4, 2
    attempt = 3 + steps_taken
    for cap, can in ((2 * attempt + finish, True), (2 * attempt + finish - 1, False)):
        engine = make_engine(MeteredBackbone(), sampler=make_sampler(max_cost=cap, finish_steps=finish))
        engine.admit(0, embedding=embedding(1), seed=0)
        for _ in range(3):
            engine.tick()
        for _ in range(steps_taken):
            assert engine.allowed(0)[D], "there is less to do again here"
            engine.act({0: C})
            engine.tick()
        assert engine.info(0).cost == attempt
        assert engine.allowed(0)[D] == can
        if not can:
            with pytest.raises(SlotError, match=f"can't redraw: that would cost more than its max_cost={cap}"):
                engine.act({0: D})
            continue
        engine.act({0: D})
        for _ in range(3):
            engine.tick()
        for _ in range(steps_taken):
            engine.act({0: C})
            engine.tick()
        assert not engine.allowed(0)[D]
        engine.act({0: S})
        while engine.busy:
            engine.tick()
        assert engine.info(0).cost == cap


def test_a_share_of_the_full_run_caps_each_image_at_its_own_steps_and_guidance() -> None:
    engine = make_engine(MeteredBackbone(), sampler=make_sampler(max_cost_share=0.5, max_cost=9))
    own = (Setting(num_steps=10), Setting(num_steps=10, guidance_scale=1.0), Setting(num_steps=20))
    for slot, setting in enumerate(own):
        engine.admit(slot, embedding=embedding(1), seed=0, setting=setting)
    while engine.busy:
        engine.tick()
        engine.act({slot: C if engine.allowed(slot)[C] else S for slot in engine.deciding()})
    assert [engine.info(slot).cost for slot in range(3)] == [5, 2.5, 9], "the smaller of both caps"
    engine.release(0)
    engine.admit(0, embedding=embedding(1), seed=0, setting=Setting(num_steps=10, max_cost=7))
    while engine.busy:
        engine.tick()
        engine.act({slot: C if engine.allowed(slot)[C] else S for slot in engine.deciding()})
    assert engine.info(0).cost == 7, "a setting's own cap counts alone"


@cache
def schedules_of(finish_steps: int, leap_steps: int | None) -> Schedules:
    sampler = make_sampler(num_steps=8, finish_steps=finish_steps, leap_steps=leap_steps)
    return Schedules(MeteredBackbone(), sampler, RefineSection())


@given(
    caps=st.lists(st.floats(6, 25), min_size=3, max_size=3),
    finish_steps=st.integers(0, 3),
    leap_steps=st.sampled_from((None, 2, 4)),
    chosen=st.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None)
def test_no_random_policy_over_all_actions_exceeds_the_cap(
    caps: list[float], finish_steps: int, leap_steps: int | None, chosen: Any
) -> None:
    backbone, schedules = MeteredBackbone(), schedules_of(finish_steps, leap_steps)
    sampler = schedules.first.sampler
    engine = Engine(backbone, sampler, RefineSection(), slots=3, guidance_scale=3.5, rows=4, schedules=schedules)
    for slot, cap in enumerate(caps):
        setting = Setting(max_cost=cap, guidance_scale=1.0 if slot == 2 else None)
        engine.admit(slot, embedding=embedding(slot + 1), seed=slot, setting=setting)
    while engine.busy:
        engine.tick()
        for slot in engine.deciding():
            allowed = [action for action in Action if engine.allowed(slot)[action]]
            assert S in allowed, "an end can always be paid"
            engine.act({slot: chosen.choice(allowed)})
    assert engine.done() == [0, 1, 2]
    for slot, cap in enumerate(caps):
        info = engine.info(slot)
        assert info.cost <= cap
        assert backbone.passes[slot + 1] == info.nfe
