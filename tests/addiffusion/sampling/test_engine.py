"""The engine against plain loops over diffusers, and against itself in other company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import PromptEmbedding
from addiffusion.backbones.solvers import solver_of
from addiffusion.backbones.stable_diffusion import StableDiffusionBackbone
from addiffusion.config import BackboneSection, RefineSection, SamplerSection
from addiffusion.errors import SlotError
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.slots import Phase
from addiffusion.seeds import generator
from tests.addiffusion.sampling.metered import LATENT, MeteredBackbone, embedding, field

C, S, R = Action.CONTINUE, Action.STOP, Action.REFINE
SAMPLER = SamplerSection(num_steps=10, warmup_steps=2, finish_steps=3)
action_lists = st.lists(st.sampled_from((C, C, C, R, S)), min_size=10, max_size=10)


def make_engine(
    backbone: Any,
    *,
    sampler: SamplerSection = SAMPLER,
    refine: RefineSection | None = None,
    slots: int = 3,
    guidance: float = 3.5,
) -> Engine:
    return Engine(backbone, sampler, refine or RefineSection(), slots=slots, guidance_scale=guidance)


def run_one(engine: Engine, *, tag: int = 1, seed: int = 7, actions: Sequence[Action] = (), slot: int = 0) -> Tensor:
    """One episode to its end; continues where ``actions`` has run out. The slot is left DONE."""
    engine.admit(slot, embedding=embedding(tag), seed=seed)
    script = iter(actions)
    while engine.busy:
        engine.tick()
        engine.act({waiting: next(script, C) for waiting in engine.deciding()})
    return engine.z0_pred[slot]


class Loop:
    """One episode, one image, one diffusers scheduler: what the engine must agree with."""

    def __init__(self, scheduler: DDIMScheduler, num_steps: int, *, tag: int, seed: int, guidance: float) -> None:
        self.scheduler, self.tag, self.guidance = scheduler, tag, guidance
        scheduler.set_timesteps(num_steps)
        self.timesteps = [int(t) for t in scheduler.timesteps]
        self.z = torch.randn(1, *LATENT, generator=generator(seed, "latent"))
        self.noise = generator(seed, "refine")

    def predict(self, z: Tensor, t: int) -> Tensor:
        cond, uncond = (field(z, torch.tensor([float(t)]), torch.tensor([tag])) for tag in (float(self.tag), 0.0))
        return uncond + self.guidance * (cond - uncond) if self.guidance > 1 else cond

    def step(self, index: int) -> Tensor:
        """Commit one solver step; the clean prediction."""
        result = self.scheduler.step(self.predict(self.z, self.timesteps[index]), self.timesteps[index], self.z)
        self.z = result.prev_sample
        return result.pred_original_sample

    def clean(self, z: Tensor, t: int) -> Tensor:
        return self.scheduler.step(self.predict(z, t), t, z).pred_original_sample

    def noised(self, z0: Tensor, t: int) -> Tensor:
        noise = torch.randn(LATENT, generator=self.noise)[None]
        return self.scheduler.add_noise(z0, noise, torch.tensor([t]))


# ---------------------------------------------------------------- against diffusers


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_always_continue_equals_the_scheduler_loop(prediction: str, guidance: float) -> None:
    backbone = MeteredBackbone(prediction=prediction)
    engine = make_engine(backbone, guidance=guidance)
    loop = Loop(backbone.scheduler, 10, tag=4, seed=11, guidance=guidance)
    engine.admit(1, embedding=embedding(4), seed=11)
    for step in range(10):
        engine.tick()
        torch.testing.assert_close(engine.z0_pred[1], loop.step(step)[0], rtol=0, atol=1e-4)
        engine.act(dict.fromkeys(engine.deciding(), C))
    assert engine.done() == [1]
    torch.testing.assert_close(engine.z0_pred[1], loop.z[0], rtol=0, atol=1e-4)
    assert engine.info(1).network_evals == (20 if guidance > 1 else 10)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_finish_is_ddim_on_a_respaced_schedule(prediction: str) -> None:
    backbone = MeteredBackbone(prediction=prediction)
    actual = run_one(make_engine(backbone), actions=[C, C, S])
    loop = Loop(backbone.scheduler, 10, tag=1, seed=7, guidance=3.5)
    for step in range(5):
        loop.step(step)
    start = loop.timesteps[5]
    timesteps = [round(start * (1 - j / 3)) for j in range(3)]
    for t, following in pairwise(timesteps):
        z0 = loop.clean(loop.z, t)
        alpha_bar = backbone.scheduler.alphas_cumprod[t]
        eps = (loop.z - alpha_bar.sqrt() * z0) / (1 - alpha_bar).sqrt()
        loop.z = backbone.scheduler.add_noise(z0, eps, torch.tensor([following]))
    torch.testing.assert_close(actual, loop.clean(loop.z, timesteps[-1])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("decision", [0, 4, 7])
@pytest.mark.parametrize("kind", ["attention", "grid", "random"])
def test_a_refine_is_k_masked_passes_and_a_fresh_start_at_the_next_point(decision: int, kind: Any) -> None:
    """Decision 7 is taken at the last schedule point: there the refined prediction is the result."""
    backbone = MeteredBackbone()
    engine = make_engine(backbone, refine=RefineSection(mask=kind, k=3, r_noise=0.4))
    actual = run_one(engine, actions=[C] * decision + [R])
    mask = engine.refine_mask(0)
    assert mask is not None
    assert 0.05 < mask.mean() < 0.95
    loop = Loop(backbone.scheduler, 10, tag=1, seed=7, guidance=3.5)
    at = 2 + decision
    z0 = [loop.step(step) for step in range(at + 1)][-1]
    for _ in range(3):
        t = round(0.4 * loop.timesteps[at])
        z0 = loop.clean(mask * loop.noised(z0, t) + (1 - mask) * z0, t)
    if at < 9:
        loop.z = loop.noised(z0, loop.timesteps[at + 1])
        z0 = [loop.step(step) for step in range(at + 1, 10)][-1]
    torch.testing.assert_close(actual, z0[0], rtol=0, atol=1e-4)
    assert engine.info(0).nfe == 10 + 3


@pytest.mark.parametrize("folder", ["sd15_like", "embedded_like"])
def test_the_image_equals_the_pipelines(folder: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(folder)
    backbone = load(path)
    engine = make_engine(backbone, slots=2, guidance=7.5)
    (prompt,) = backbone.encode_prompts(["a red cat"])
    engine.admit(1, embedding=prompt, seed=3)
    while engine.busy:
        engine.tick()
        engine.act(dict.fromkeys(engine.deciding(), C))
    pipeline: Any = StableDiffusionPipeline.from_pretrained(path, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = solver_of(backbone.scheduler, SAMPLER)
    latents = torch.randn(backbone.latent_shape, generator=generator(3, "latent"))[None]
    images = pipeline("a red cat", num_inference_steps=10, guidance_scale=7.5, latents=latents, output_type="pil")
    difference = np.abs(engine.decode()[1].astype(int) - np.asarray(images.images[0]).astype(int))
    # Another batch size moves latents by about 1e-6, which may tip a pixel over a rounding edge.
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def load(path: Path) -> StableDiffusionBackbone:
    section = BackboneSection(kind="stable_diffusion", path=str(path), device="cpu")
    return StableDiffusionBackbone.from_section(section)


# ---------------------------------------------------------------- an episode is a function of prompt, seed, actions


class Episode:
    """A scripted episode that can be run in any company."""

    def __init__(self, prompt: PromptEmbedding, seed: int, actions: Sequence[Action]) -> None:
        self.prompt, self.seed, self.actions = prompt, seed, actions

    def choose(self, engine: Engine, slot: int, warmup: int) -> Action:
        return self.actions[engine.info(slot).step - warmup]


def run_together(
    engine: Engine, episodes: Sequence[Episode], *, place: Callable[[list[int]], int], start: Callable[[], bool]
) -> list[tuple[Tensor, int]]:
    """Run all episodes, admitting the next one into a free slot of ``place``'s choice whenever ``start`` says so."""
    waiting, running = list(range(len(episodes))), dict[int, int]()
    results: dict[int, tuple[Tensor, int]] = {}
    while waiting or running:
        while waiting and engine.free() and (start() or not running):
            slot, index = place(engine.free()), waiting.pop(0)
            engine.admit(slot, embedding=episodes[index].prompt, seed=episodes[index].seed)
            running[slot] = index
        engine.tick()
        engine.act({slot: episodes[running[slot]].choose(engine, slot, 1) for slot in engine.deciding()})
        for slot in engine.done():
            results[running.pop(slot)] = engine.z0_pred[slot].clone(), engine.info(slot).nfe
            engine.release(slot)
    return [results[index] for index in range(len(episodes))]


@pytest.fixture(scope="module")
def unet_backbone(sd15_like: Path) -> StableDiffusionBackbone:
    return load(sd15_like)


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_an_episode_is_bitwise_the_same_in_any_slot_company_and_order(
    unet_backbone: StableDiffusionBackbone, data: st.DataObject
) -> None:
    sampler = SamplerSection(num_steps=4, warmup_steps=1, finish_steps=2)
    words = data.draw(st.lists(st.sampled_from(("red cat", "blue dog", "a", "")), min_size=1, max_size=4))
    prompts = unet_backbone.encode_prompts(words)
    episodes = [
        Episode(prompt, data.draw(st.integers(0, 9)), data.draw(st.tuples(*[st.sampled_from(Action)] * 3)))
        for prompt in prompts
    ]
    engine = make_engine(unet_backbone, sampler=sampler)
    alone = [run_together(engine, [episode], place=min, start=lambda: True)[0] for episode in episodes]
    order = data.draw(st.permutations(range(len(episodes))))
    together = run_together(
        engine,
        [episodes[index] for index in order],
        place=lambda free: data.draw(st.sampled_from(free)),
        start=lambda: data.draw(st.booleans()),
    )
    for (latent, nfe), index in zip(together, order, strict=True):
        assert torch.equal(latent, alone[index][0])
        assert nfe == alone[index][1]


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "unipc3"])
def test_alone_or_in_company_the_image_is_the_same(unet_backbone: StableDiffusionBackbone, solver: str) -> None:
    """Another batch shape may change the order of sums in the network, but no more than that."""
    sampler = SamplerSection.model_validate(
        {"solver": solver, "num_steps": 6, "warmup_steps": 1, "finish_steps": 2, "finish_solver": "dpm++2m"}
    )
    (prompt,) = unet_backbone.encode_prompts(["red cat"])
    scripts = ([C, R, C, S], [C, C, C, C, C], [S])
    episodes = [Episode(prompt, seed, (*script, S, S, S, S)) for seed, script in enumerate(scripts)]
    crowd = run_together(make_engine(unet_backbone, sampler=sampler), episodes, place=min, start=lambda: True)
    for episode, (latent, nfe) in zip(episodes, crowd, strict=True):
        solo = make_engine(unet_backbone, sampler=sampler, slots=1)
        ((alone, passes),) = run_together(solo, [episode], place=min, start=lambda: True)
        assert passes == nfe
        torch.testing.assert_close(latent, alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.parametrize("at", [2, 6, 9])
def test_a_stop_without_finish_is_a_prefix_of_the_full_run(at: int) -> None:
    sampler = SamplerSection(num_steps=10, warmup_steps=2, finish_steps=0)
    engine = make_engine(MeteredBackbone(), sampler=sampler)
    engine.admit(0, embedding=embedding(1), seed=7)
    for step in range(at + 1):
        engine.tick()
        if step < at:
            engine.act(dict.fromkeys(engine.deciding(), C))
    full = engine.z0_pred[0]
    other = make_engine(MeteredBackbone(), sampler=sampler)
    stopped = run_one(other, actions=[C] * (at - 2) + [S], slot=2)
    assert torch.equal(stopped, full)
    assert other.info(2).nfe == at + 1


def test_step_17_of_50_is_bitwise_the_prefix(unet_backbone: StableDiffusionBackbone) -> None:
    sampler = SamplerSection(num_steps=50, warmup_steps=3, finish_steps=0)
    prompt = unet_backbone.uncond()
    kept: list[Tensor] = []
    for stop_at in (49, 17):
        engine = make_engine(unet_backbone, sampler=sampler, slots=1)
        engine.admit(0, embedding=prompt, seed=1)
        while engine.busy:
            engine.tick()
            if engine.info(0).step == 17 and not engine.done():
                kept.append(engine.z0_pred[0])
            engine.act({slot: S if engine.info(slot).step == stop_at else C for slot in engine.deciding()})
    assert torch.equal(*kept)
    assert torch.equal(engine.z0_pred[0], kept[0])


# ---------------------------------------------------------------- what it costs


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


# ---------------------------------------------------------------- life cycle and failures


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
