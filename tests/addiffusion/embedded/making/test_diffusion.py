"""The embedded diffusion model: training target, shipped pipeline, and agreement with stock diffusers."""

from __future__ import annotations

import os
import random

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from addiffusion.assets import WEIGHTS_FOLDER, weights_path
from addiffusion.embedded.making.diffusion import LatentPool
from addiffusion.embedded.models.autoencoder import decode_latents, encode_images, load_autoencoder
from addiffusion.embedded.models.denoiser import DiffusionModel, add_noise, build_scheduler
from addiffusion.embedded.models.tokenizer import load_tokenizer
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.quality import scene_quality
from addiffusion.embedded.world.splits import split_of, split_of_scene
from addiffusion.errors import WeightsError
from addiffusion.seeds import generator

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def shipped() -> DiffusionModel:
    folder = weights_path("pipeline")
    return DiffusionModel(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).eval(),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder").eval(),
        tokenizer=load_tokenizer(folder),
        vae=load_autoencoder(folder / "vae"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
    )


def test_noising_is_diffusers_noising_and_velocity() -> None:
    scheduler = build_scheduler()
    clean = torch.randn(64, 8, 16, 16, generator=generator("clean"))
    noised = add_noise(clean, scheduler.alphas_cumprod, generator("draw"))
    noise = torch.randn(clean.shape, generator=generator("draw"))
    torch.testing.assert_close(noised.z, scheduler.add_noise(clean, noise, noised.t))
    torch.testing.assert_close(noised.velocity, scheduler.get_velocity(clean, noise, noised.t))


def test_noising_covers_all_timesteps_and_weights_stay_bounded() -> None:
    noised = add_noise(torch.zeros(4000, 8, 1, 1), build_scheduler().alphas_cumprod, generator("draw"))
    assert noised.t.min() < 60
    assert noised.t.max() > 980
    assert noised.t.max() <= 999
    assert noised.weight.min() >= 0.15
    assert noised.weight.max() <= 1.0


def test_shipped_pipeline_is_a_stock_pipeline_of_64_pixels() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(weights_path("pipeline"))
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a large red circle", num_inference_steps=2, guidance_scale=3.5).images[0]
    assert image.size == (64, 64)
    assert pipe.vae_scale_factor == 4
    assert pipe.safety_checker is None


def test_sampling_equals_the_stock_pipeline(shipped: DiffusionModel) -> None:
    captions = ("a large red circle", "a blue ring above a green ring")
    noise = shipped.sampler.noise([1, 2])
    pipe = StableDiffusionPipeline.from_pretrained(weights_path("pipeline"))
    pipe.set_progress_bar_config(disable=True)
    stock = pipe(list(captions), latents=noise, num_inference_steps=4, guidance_scale=3.5, output_type="np").images
    ours = drawn(shipped, captions, noise, steps=4)
    assert np.abs(ours.astype(np.int16) - np.rint(stock * 255).astype(np.int16)).max() <= 1


def test_shipped_model_draws_tier_1_right(shipped: DiffusionModel) -> None:
    captions = scene_batch(11, 0, 12, tier=1, detail="minimal").captions
    quality = scene_quality(drawn(shipped, captions, shipped.sampler.noise(range(12)), steps=30), captions)
    assert quality.soft >= 0.9, quality


def drawn(model: DiffusionModel, captions: tuple[str, ...], noise: torch.Tensor, *, steps: int) -> np.ndarray:
    *_, z0 = model.sampler.z0_preds(captions, noise, solver="ddim", steps=steps, guidance=3.5)
    return model.sampler.decode(z0)


def test_shipped_autoencoder_round_trip(shipped: DiffusionModel) -> None:
    images = scene_batch(12, 0, 64).images
    latents = encode_images(shipped.vae, images)
    error = (decode_latents(shipped.vae, latents).astype(np.float64) - images) / 255
    assert -10 * np.log10(np.square(error).mean()) > 30
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(latents.shape[1]), atol=0.15, rtol=0)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(latents.shape[1]), atol=0.15, rtol=0)


def test_latent_pool_is_pure_in_its_seed_and_drops_captions(shipped: DiffusionModel) -> None:
    one, two = (LatentPool(shipped.vae, 3, 40) for _ in range(2))
    first, second = one.draw(random.Random(1), 200), two.draw(random.Random(1), 200)
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.maps, second.maps)
    assert first.captions == second.captions
    assert 5 <= first.captions.count("") <= 40


def test_latent_pool_holds_the_train_split_alone(shipped: DiffusionModel) -> None:
    pool = LatentPool(shipped.vae, 4, 60)
    assert {split_of_scene(scene) for scene in pool.scenes} == {"train"}
    assert {split_of(caption) for caption in pool.draw(random.Random(2), 60).captions if caption} == {"train"}


def test_the_schedule_ends_in_pure_noise() -> None:
    kept = build_scheduler().alphas_cumprod
    assert kept[-1] == pytest.approx(0, abs=1e-9)
    assert (kept.diff() < 0).all()
    # log SNR(t) = 2 log cot(pi t / 2) + 2 log 2, at t = 1/2
    assert torch.logit(kept[499]) == pytest.approx(2 * np.log(2), abs=1e-3)


def test_training_sees_the_noise_levels_of_stable_diffusion() -> None:
    scheduler = build_scheduler()
    noised = add_noise(torch.zeros(4000, 8, 1, 1), scheduler.alphas_cumprod, generator("levels"))
    stock = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    drawn = (torch.rand(4000, generator=generator("u")).pow(0.9) * 1000).long().clamp(max=999)
    wanted = torch.logit(stock.alphas_cumprod[drawn].double()).quantile(torch.tensor([0.2, 0.5, 0.8]).double())
    mine = torch.logit(scheduler.alphas_cumprod[noised.t].double()).quantile(torch.tensor([0.2, 0.5, 0.8]).double())
    torch.testing.assert_close(mine, wanted, atol=0.25, rtol=0)


def test_missing_weights_name_their_place_and_the_fix() -> None:
    with pytest.raises(WeightsError, match="addiffusion embedded train"):
        weights_path("pipeline", "no-such-part")


def test_all_shipped_weights_stay_within_40_megabytes() -> None:
    total = sum(path.stat().st_size for path in WEIGHTS_FOLDER.rglob("*") if path.is_file())
    assert 10 * MEGABYTE < total <= 40 * MEGABYTE


def test_shipped_configurations_hold_no_path_of_the_machine_that_trained_them() -> None:
    for path in WEIGHTS_FOLDER.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(encoding="utf-8")
