"""The reference sampler against diffusers' own pipeline, with random weights of the real classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from addiffusion.config.sampling import FinishSolverName
from addiffusion.embedded.models.samples import SceneSampler
from addiffusion.errors import WeightsError
from addiffusion.seeds import generator

CAPTIONS = ["a red cat", "two blue dogs", "a"]
SEEDS = [3, 4, 5]


@pytest.fixture(scope="module")
def sampler(embedded_like: Path) -> SceneSampler:
    return SceneSampler.from_folder(embedded_like)


def drawn(
    sampler: SceneSampler,
    solver: FinishSolverName,
    *,
    captions: list[str] = CAPTIONS,
    steps: int = 6,
    guidance: float = 4.0,
):
    noise = sampler.noise(SEEDS[: len(captions)])
    return list(sampler.z0_preds(captions, noise, solver=solver, steps=steps, guidance=guidance))


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_last_prediction_is_the_pipelines_image(
    sampler: SceneSampler, embedded_like: Path, solver: FinishSolverName, guidance: float
) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(embedded_like, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    if solver == "dpm++2m":
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    streams = [generator(seed, "latent") for seed in SEEDS]
    expected = pipeline(
        CAPTIONS, num_inference_steps=6, guidance_scale=guidance, generator=streams, output_type="pil"
    ).images
    mine = sampler.decode(drawn(sampler, solver, guidance=guidance)[-1])
    difference = np.abs(mine.astype(int) - np.stack([np.asarray(image) for image in expected]))
    assert difference.max() <= 1, f"largest difference {difference.max()} of 255"


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_there_is_one_prediction_per_step_and_rows_do_not_depend_on_each_other(
    sampler: SceneSampler, solver: FinishSolverName
) -> None:
    predictions = drawn(sampler, solver)
    others = drawn(sampler, solver, captions=[CAPTIONS[0], "another", "crowd"])
    assert len(predictions) == 6
    assert all(torch.equal(mine[0], theirs[0]) for mine, theirs in zip(predictions, others, strict=True))
    assert not torch.equal(predictions[-1][1], others[-1][1])


def test_noise_is_the_engines(sampler: SceneSampler) -> None:
    expected = torch.randn(sampler.latent_shape, generator=generator(4, "latent"))
    assert torch.equal(sampler.noise(SEEDS)[1], expected)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere.*--weights"):
        SceneSampler.from_folder(tmp_path / "nowhere")
