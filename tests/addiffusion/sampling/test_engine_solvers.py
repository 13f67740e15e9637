"""Every solver inside the engine: full runs, refines, finishes, and samplers that draw noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.solvers import solver_of
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import ConfigError
from addiffusion.sampling.engine import Engine
from addiffusion.seeds import generator
from tests.addiffusion.sampling.metered import LATENT, MeteredBackbone, embedding, field

STEPS = 10
DETERMINISTIC = ("ddim", "dpm++2m", "dpm++3m", "euler", "unipc2", "unipc3")


def make_sampler(solver: Any, **options: Any) -> SamplerSection:
    return SamplerSection(**{"solver": solver, "num_steps": STEPS, "warmup_steps": 2, "finish_steps": 0, **options})


class Diffusers:
    """One image through diffusers, guided as the engine guides."""

    def __init__(self, sampler: SamplerSection, *, guidance: float = 3.5, negative: float = 0.0) -> None:
        self.scheduler: Any = solver_of(MeteredBackbone().scheduler, sampler)
        self._guidance, self._negative = guidance, negative
        self.scheduler.set_timesteps(sampler.num_steps)

    def begin(self, index: int) -> None:
        """Start anew at a schedule point, with nothing remembered."""
        self.scheduler.set_timesteps(STEPS)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(index)

    def predict(self, z: Tensor, t: float) -> Tensor:
        cond, uncond = (field(z, torch.tensor([t]), torch.tensor([tag])) for tag in (1.0, self._negative))
        return uncond + self._guidance * (cond - uncond)

    def step(self, z: Tensor, index: int, **options: Any) -> tuple[Tensor, Tensor]:
        """(next latent, clean prediction)."""
        t = self.scheduler.timesteps[index]
        scaled = self.scheduler.scale_model_input(z, t)
        result = self.scheduler.step(self.predict(scaled, float(t)), t, z, **options)
        clean = getattr(result, "pred_original_sample", getattr(result, "denoised", None))
        return result.prev_sample, self.scheduler.model_outputs[-1] if clean is None else clean

    def initial(self, seed: int) -> Tensor:
        return torch.randn(1, *LATENT, generator=generator(seed, "latent")) * self.scheduler.init_noise_sigma


def run(engine: Engine, actions: list[Action], **admission: Any) -> Tensor:
    engine.admit(0, embedding=embedding(1), seed=7, **admission)
    script = iter(actions)
    while engine.busy:
        engine.tick()
        engine.act({slot: next(script, Action.CONTINUE) for slot in engine.deciding()})
    return engine.z0_pred[0]


def make_engine(sampler: SamplerSection, refine: RefineSection | None = None, guidance: float = 3.5) -> Engine:
    return Engine(MeteredBackbone(), sampler, refine or RefineSection(), slots=2, guidance_scale=guidance)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_a_full_run_is_diffusers_own(solver: str) -> None:
    loop = Diffusers(make_sampler(solver))
    z = loop.initial(7)
    for index in range(STEPS):
        z, clean = loop.step(z, index)
    assert_close(run(make_engine(make_sampler(solver)), []), clean[0])


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_history_restarts_after_a_refine(solver: str) -> None:
    """What follows is a fresh diffusers run from the next schedule point on."""
    sampler, refine = make_sampler(solver), RefineSection(mask="grid", k=1)
    engine = make_engine(sampler, refine)
    actual = run(engine, [Action.CONTINUE, Action.REFINE])
    mask = engine.refine_mask(0)
    assert mask is not None
    loop = Diffusers(sampler)
    vp = MeteredBackbone().scheduler
    z = loop.initial(7)
    for index in range(4):
        z, clean = loop.step(z, index)
    noise = generator(7, "refine")
    t = round(0.5 * float(loop.scheduler.timesteps[3]))
    noised = vp.add_noise(clean, torch.randn(LATENT, generator=noise)[None], torch.tensor([t]))
    mixed = mask * noised + (1 - mask) * clean
    vp.set_timesteps(STEPS)
    clean = vp.step(loop.predict(mixed, float(t)), t, mixed).pred_original_sample
    fresh = torch.randn(LATENT, generator=noise)[None]
    loop.begin(4)
    z = loop.scheduler.add_noise(clean, fresh, loop.scheduler.timesteps[4:5])
    for index in range(4, STEPS):
        z, clean = loop.step(z, index)
    assert_close(actual, clean[0])


def test_a_flow_is_refined_and_finished_along_its_straight_lines() -> None:
    """z = (1 - s) z0 + s noise everywhere: at the refine's level, at the next point, and on the way to 0."""
    sampler = make_sampler("flow_euler", finish_steps=2)
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    engine = Engine(
        MeteredBackbone(scheduler=flow), sampler, RefineSection(mask="grid", k=1), slots=2, guidance_scale=1.0
    )
    actual = run(engine, [Action.REFINE, Action.STOP])
    mask = engine.refine_mask(0)
    assert mask is not None
    shares: Any = solver_of(flow, sampler)
    shares.set_timesteps(STEPS)
    s = shares.sigmas
    z, noise = torch.randn(LATENT, generator=generator(7, "latent"))[None], generator(7, "refine")

    def clean(z: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        u = field(z, 1000 * share[None], torch.ones(1))
        return z - share * u, u

    for index in range(3):
        z0, u = clean(z, s[index])
        z = z + (s[index + 1] - s[index]) * u
    level = s[2] / 2
    noised = (1 - level) * z0 + level * torch.randn(LATENT, generator=noise)
    z0, _ = clean(mask * noised + (1 - mask) * z0, level)
    z = (1 - s[3]) * z0 + s[3] * torch.randn(LATENT, generator=noise)
    for share, following in ((s[3], s[4]), (s[4], s[4] / 2), (s[4] / 2, None)):
        z0, u = clean(z, share)
        z = z if following is None else z + (following - share) * u
    assert engine.info(0).nfe == 3 + 1 + 1 + 2
    assert_close(actual, z0[0])


@pytest.mark.parametrize("solver", ["dpm++2m", "unipc3", "pndm"])
@pytest.mark.parametrize("finish", ["ddim", "dpm++2m"])
def test_a_finish_costs_its_passes_and_arrives(solver: str, finish: str) -> None:
    engine = make_engine(make_sampler(solver, finish_steps=3, finish_solver=finish))
    result = run(engine, [Action.CONTINUE, Action.STOP])
    assert engine.info(0).nfe == 2 + 2 + 3
    assert result.isfinite().all()


@pytest.mark.parametrize("solver", ["euler_ancestral", "lcm"])
def test_fresh_noise_comes_from_the_episodes_own_stream(solver: str) -> None:
    """Also where the slot waits for its decision while another one goes on."""
    sampler = make_sampler(solver)
    loop, noise = Diffusers(sampler), generator(7, "solver")
    z = loop.initial(7)
    for index in range(STEPS):
        z, clean = loop.step(z, index, generator=noise)
    engine = make_engine(sampler)
    engine.admit(0, embedding=embedding(1), seed=7)
    engine.admit(1, embedding=embedding(2), seed=8)
    for tick in range(STEPS + 3):
        engine.tick()
        waits = tick in {3, 5, 6}
        engine.act(dict.fromkeys([1] if waits else engine.deciding(), Action.CONTINUE))
    assert engine.done() == [0, 1]
    assert_close(engine.z0_pred[0], clean[0])


def test_scale_and_negative_prompt_are_the_slots_own() -> None:
    sampler = make_sampler("ddim")
    loop = Diffusers(sampler, guidance=2.0, negative=3.0)
    z = loop.initial(7)
    for index in range(STEPS):
        z, clean = loop.step(z, index)
    engine = make_engine(sampler, guidance=5.0)
    engine.admit(1, embedding=embedding(9), seed=8)
    assert_close(run(engine, [], negative=embedding(3), guidance_scale=2.0), clean[0])
    engine.release(0)
    assert_close(run(engine, []), run(make_engine(sampler, guidance=5.0), []))


def test_guidance_can_not_be_asked_of_an_engine_without() -> None:
    engine = make_engine(make_sampler("ddim"), guidance=1.0)
    with pytest.raises(ConfigError, match=r"guidance_scale=2 .* this engine was built with backbone.guidance_scale=1"):
        engine.admit(0, embedding=embedding(1), seed=0, guidance_scale=2.0)
    with pytest.raises(ConfigError, match="guidance_scale=-1 can't be used: give 0 or more"):
        engine.admit(0, embedding=embedding(1), seed=0, guidance_scale=-1.0)
    assert engine.free() == [0, 1]


def test_a_mask_can_come_from_self_attention() -> None:
    engine = make_engine(make_sampler("ddim"), RefineSection(mask="self_attention"))
    run(engine, [Action.REFINE])
    mask = engine.refine_mask(0)
    assert mask is not None
    assert 0.05 < mask.mean() < 0.95
    assert engine.info(0).attention_entropy == 0.0
