"""Training of the embedded denoiser and text encoder, together, on latents of rendered scenes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from jaxtyping import Float, Int64
from torch import Tensor, nn

from addiffusion.embedded.making.part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.embedded.making.text_training import load_text_encoder
from addiffusion.embedded.models.autoencoder import encode_images, load_autoencoder
from addiffusion.embedded.models.denoiser import DiffusionModel, Noised, add_noise, build_scheduler, build_unet
from addiffusion.embedded.models.tokenizer import load_tokenizer
from addiffusion.embedded.world.benchmark import benchmark_captions
from addiffusion.embedded.world.data import describe, scene_chunks, stream
from addiffusion.embedded.world.quality import scene_quality
from addiffusion.embedded.world.scene_maps import MapReader, scene_maps
from addiffusion.embedded.world.scenes import TIERS, Scene
from addiffusion.seeds import derive_seed, generator
from addiffusion.torch_typed import from_numpy

_CAPTION_DROPOUT: Final = 0.1
_TIER_WEIGHTS: Final = (0.15, 0.4, 0.45)
"""A crowded scene teaches more shapes per pass, and single objects are learned first anyway."""
_MAP_WEIGHT: Final = 0.1
_STEPS: Final = 6_500
_RECIPE: Final = Recipe(lr=1.5e-3, decay_from=0.4)
_GUIDANCE: Final = 3.5
_QUALITY_STEPS: Final = 20
_QUALITY_PROMPTS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBatch:
    """What one step learns from."""

    latents: Float[Tensor, "n c 16 16"]
    captions: tuple[str, ...]
    """One in ten is empty, which trains the unconditional branch."""
    maps: Int64[Tensor, "n 2 16 16"]


class LatentPool:
    """Encoded scenes of the training split, kept in memory on the training device (9 KB each)."""

    def __init__(self, vae: AutoencoderTiny, seed: int, count: int) -> None:
        scenes: list[Scene] = []
        latents: list[Tensor] = []
        for chunk in scene_chunks(seed, count, split="train", tier_weights=_TIER_WEIGHTS):
            scenes += chunk.scenes
            latents.append(encode_images(vae, chunk.images))
        self.scenes, self.latents = tuple(scenes), torch.cat(latents)
        self.maps = from_numpy(scene_maps(scenes)).to(self.latents.device)

    def draw(self, rng: random.Random, size: int) -> LatentBatch:
        """``size`` scenes with fresh captions."""
        chosen = rng.choices(range(len(self.scenes)), k=size)
        captions = describe([self.scenes[index] for index in chosen], rng)
        dropped = tuple("" if rng.random() < _CAPTION_DROPOUT else caption for caption in captions)
        return LatentBatch(latents=self.latents[chosen], captions=dropped, maps=self.maps[chosen].long())


def diffusion_loss(model: DiffusionModel, maps: MapReader, batch: LatentBatch, noised: Noised) -> StepLoss:
    """Weighted squared error of the predicted velocity, and the cross-entropy of the scene maps.

    The log also has the unweighted error.

    Args:
        model: UNet and text encoder.
        maps: reads the scene maps off the UNet's last pass.
        batch: latents (n, c, h, w) with their captions and true maps.
        noised: the same latents, noised, with the velocity to predict.
    """
    velocity = model.velocity(noised.z, noised.t, model.hidden(batch.captions))
    error = (velocity - noised.velocity).square().mean((1, 2, 3))
    mapped = maps.loss(batch.maps)
    total = 2.0 * (noised.weight * error).mean() + _MAP_WEIGHT * mapped
    return StepLoss(total=total, metrics={"loss": total, "v_mse": error.mean(), "maps": mapped})


class DiffusionPart:
    """Trains UNet and text encoder together."""

    name = "diffusion"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``unet``, ``text_encoder``, ``scheduler`` and the index of ``pipeline``, anew at every checkpoint."""
        folder = context.out / "pipeline"
        model = self._build(folder, context)
        with initialised_by(context.seed, "maps"):
            maps = MapReader(model.unet)
        pool = LatentPool(
            model.vae, derive_seed(context.seed, self.name, "pool"), context.pool_size(cpu=64_000, cuda=250_000)
        )
        size = context.batch_size(cpu=32, cuda=512)

        def loss(step: int) -> StepLoss:
            seed = derive_seed(context.seed, self.name, step)
            batch = pool.draw(stream(seed), size)
            noised = add_noise(batch.latents, model.scheduler.alphas_cumprod, generator(seed))
            return diffusion_loss(model, maps, batch, noised)

        objective = Objective(
            name=self.name,
            module=nn.ModuleDict({"unet": model.unet, "text_encoder": model.text_encoder, "maps": maps.head}),
            loss=loss,
            recipe=_RECIPE,
            shards=context.shards(),
            export=lambda: model.save(folder),
        )
        result = run_training(objective, context, steps=context.steps(_STEPS))
        return result.report(metrics=tier_quality(model, context))

    def _build(self, folder: Path, context: TrainingContext) -> DiffusionModel:
        tokenizer = load_tokenizer(folder)
        with initialised_by(context.seed, self.name):
            unet = build_unet()
        vae = load_autoencoder(folder / "vae")
        nn.Module.to(vae, context.device)  # the typed one; diffusers wraps it
        return DiffusionModel(
            unet=unet,
            text_encoder=load_text_encoder(context),
            tokenizer=tokenizer,
            vae=vae,
            scheduler=build_scheduler(),
        )


def tier_quality(model: DiffusionModel, context: TrainingContext) -> dict[str, float]:
    """Checker scores of sampled captions of the test split, per tier."""
    count = context.pool_size(cpu=_QUALITY_PROMPTS)
    steps = min(_QUALITY_STEPS, context.budget.max_steps or _QUALITY_STEPS)
    sampler = model.sampler
    metrics: dict[str, float] = {}
    for tier in TIERS:
        captions = tuple(islice(benchmark_captions(tier, "test", context.seed), count))
        noise = sampler.noise([derive_seed(context.seed, "held-out", tier, index) for index in range(count)])
        *_, z0 = sampler.z0_preds(captions, noise, solver="ddim", steps=steps, guidance=_GUIDANCE)
        quality = scene_quality(sampler.decode(z0), captions)
        metrics |= {f"strict_tier{tier}": quality.strict, f"soft_tier{tier}": quality.soft}
    return metrics
