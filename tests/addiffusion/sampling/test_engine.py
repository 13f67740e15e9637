"""The engine against plain loops over diffusers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from addiffusion.backbones.solvers import solver_of
from addiffusion.config import RefineSection
from addiffusion.seeds import generator
from tests.addiffusion.sampling.engine_runs import SAMPLER, C, R, S, load, make_engine, run_one
from tests.addiffusion.sampling.metered import LATENT, MeteredBackbone, embedding, field


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
