"""Promise 2: solvers and images are those of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from addiffusion.backbones import load_backbone
from addiffusion.backbones.solvers import solver_of
from addiffusion.config import SamplerSection
from addiffusion.seeds import generator
from tests.addiffusion import tiny_models
from tests.addiffusion.backbones.family_runs import KINDS, SIZE, STEPS, run, safety, section
from tests.addiffusion.sampling.solver_runs import SOLVERS, assert_steps_like_diffusers, make_scheduler


@pytest.mark.parametrize("num_steps", [5, 10, 20, 50])
@pytest.mark.parametrize("solver", SOLVERS)
def test_2_every_step_equals_diffusers(solver: str, num_steps: int) -> None:
    """Ten solvers equal diffusers at every step;"""
    assert len(SOLVERS) == 10
    assert_steps_like_diffusers(solver, make_scheduler(solver), num_steps)


@pytest.mark.parametrize("family", KINDS)
def test_2_the_image_equals_the_pipelines(family: str, tmp_path: Path) -> None:
    """an image drawn without stopping equals the one of the family's own pipeline (SD 1.5, SDXL, SD3, Flux)."""
    folder: Path = getattr(tiny_models, f"save_{family}_like")(tmp_path)
    # SD 1.5's own PNDM ends with a mixture of noise predictions where the engine returns the clean one.
    sampler = SamplerSection(
        solver="ddim" if family == "sd15" else "pipeline", num_steps=STEPS, warmup_steps=1, finish_steps=0
    )
    chosen = section(family, folder)
    backbone = load_backbone(chosen)
    engine = run(backbone, guidance=chosen.guidance_scale, sampler=sampler)
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False, **safety(family))
    pipeline.set_progress_bar_config(disable=True)
    if family == "sd15":
        pipeline.scheduler = solver_of(backbone.scheduler, sampler)
    latents = torch.randn(backbone.latent_shape, generator=generator(3, "latent"))[None]
    options: dict[str, Any] = {"negative_prompt": "ugly", "guidance_scale": chosen.guidance_scale}
    if family == "flux":
        channels, height, width = backbone.latent_shape
        latents = pipeline._pack_latents(latents, 1, channels, height, width)
        options = {"max_sequence_length": 256}
    images = pipeline(
        "a red cat", num_inference_steps=STEPS, latents=latents, height=SIZE, width=SIZE, output_type="pil", **options
    )
    assert backbone.image_size == SIZE
    difference = np.abs(engine.decode()[1].astype(int) - np.asarray(images.images[0]).astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.02
