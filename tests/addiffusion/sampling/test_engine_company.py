"""An episode is a function of its prompt, seed and actions, whatever company it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import PromptEmbedding
from addiffusion.backbones.stable_diffusion import StableDiffusionBackbone
from addiffusion.config import SamplerSection
from addiffusion.sampling.engine import Engine
from tests.addiffusion.sampling.engine_runs import C, R, S, load, make_engine, run_one
from tests.addiffusion.sampling.metered import MeteredBackbone, embedding


class Episode:
    """A scripted episode that can be run in any company."""

    def __init__(
        self, prompt: PromptEmbedding, seed: int, actions: Sequence[Action], *, guidance: float | None = None
    ) -> None:
        self.prompt, self.seed, self.actions, self.guidance = prompt, seed, actions, guidance

    def choose(self, engine: Engine, slot: int, warmup: int) -> Action:
        action = self.actions[engine.info(slot).step - warmup]
        return action if engine.allowed(slot)[action] else Action.STOP


def run_together(
    engine: Engine,
    episodes: Sequence[Episode],
    *,
    place: Callable[[list[int]], int],
    start: Callable[[], bool],
    decide: Callable[[], bool] = lambda: True,
) -> list[tuple[Tensor, int]]:
    """Run all episodes, admitting the next one into a free slot of ``place``'s choice whenever ``start`` says so."""
    waiting, running = list(range(len(episodes))), dict[int, int]()
    results: dict[int, tuple[Tensor, int]] = {}
    while waiting or running:
        while waiting and engine.free() and (start() or not running):
            slot, index = place(engine.free()), waiting.pop(0)
            one = episodes[index]
            engine.admit(slot, embedding=one.prompt, seed=one.seed, guidance_scale=one.guidance)
            running[slot] = index
        if engine.running:
            engine.tick()
        deciding = [slot for slot in engine.deciding() if decide() or not engine.running]
        engine.act({slot: episodes[running[slot]].choose(engine, slot, 1) for slot in deciding})
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
    solver = data.draw(st.sampled_from(("ddim", "dpm++2m", "unipc3")))
    sampler = SamplerSection(
        solver=solver, num_steps=4, warmup_steps=1, finish_steps=2, finish_solver="dpm++2m", leap_steps=2
    )
    words = data.draw(st.lists(st.sampled_from(("red cat", "blue dog", "a", "")), min_size=1, max_size=4))
    prompts = unet_backbone.encode_prompts(words)
    episodes = [
        Episode(
            prompt,
            data.draw(st.integers(0, 9)),
            data.draw(st.tuples(*[st.sampled_from(Action)] * 3)),
            guidance=data.draw(st.sampled_from((None, 1.0, 7.5))),
        )
        for prompt in prompts
    ]
    engine = make_engine(unet_backbone, sampler=sampler, rows=data.draw(st.integers(2, 6)))
    alone = [run_together(engine, [episode], place=min, start=lambda: True)[0] for episode in episodes]
    order = data.draw(st.permutations(range(len(episodes))))
    together = run_together(
        engine,
        [episodes[index] for index in order],
        place=lambda free: data.draw(st.sampled_from(free)),
        start=lambda: data.draw(st.booleans()),
        decide=lambda: data.draw(st.booleans()),
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


def test_buckets_of_rows_move_results_by_rounding_only() -> None:
    """A pass has the smallest power of two of rows that holds what takes part, and never more than there are."""
    exact, bucketed = MeteredBackbone(), MeteredBackbone()
    episodes = [Episode(embedding(tag), tag, [C] * tag + [S] * 9) for tag in range(1, 6)]
    engines = (
        make_engine(backbone, slots=5, rows=6, row_buckets=buckets)
        for backbone, buckets in ((exact, False), (bucketed, True))
    )
    plain, other = (run_together(engine, episodes, place=min, start=lambda: True) for engine in engines)
    for (latent, nfe), (expected, passes) in zip(other, plain, strict=True):
        assert nfe == passes
        torch.testing.assert_close(latent, expected, rtol=1e-5, atol=1e-5)
    assert {shape[0] for shape in exact.shapes} == {6}
    assert {shape[0] for shape in bucketed.shapes} == {2, 4, 6}


def test_a_slot_that_waits_takes_part_in_no_pass() -> None:
    backbone = MeteredBackbone()
    engine = make_engine(backbone, slots=2, rows=2)
    for slot in range(2):
        engine.admit(slot, embedding=embedding(slot + 1), seed=slot)
    for _ in range(3):
        engine.tick()  # two forced ones, and the one that ends in the first decision
    assert (dict(backbone.passes), engine.deciding(), engine.fill) == ({1: 3}, [0], 1.0)
    features = engine.middle_features()
    for _ in range(3):
        engine.tick()
    assert (dict(backbone.passes), engine.deciding(), engine.running) == ({1: 3, 2: 3}, [0, 1], False)
    assert features.flatten().tolist() == [1, 0]
    assert engine.middle_features([1, 0]).flatten().tolist() == [2, 1]


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
