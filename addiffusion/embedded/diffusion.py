"""The embedded latent diffusion model: UNet and text encoder, trained together on latents of rendered scenes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from addiffusion.embedded.autoencoder import LATENT_CHANNELS, decode_latents, encode_images, load_autoencoder
from addiffusion.embedded.data import describe, scene_batch, scene_chunks, stream
from addiffusion.embedded.pipeline_folder import save_index, save_module
from addiffusion.embedded.quality import scene_quality
from addiffusion.embedded.scenes import TIERS, Scene
from addiffusion.embedded.tokenizer import CONTEXT_LENGTH, encode, load_tokenizer
from addiffusion.embedded.training_part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.seeds import derive_seed, generator

LATENT_SIZE: Final = 16
TEXT_WIDTH: Final = 96
TRAIN_TIMESTEPS: Final = 1000
_CHANNELS: Final = (32, 64, 96)
_CAPTION_DROPOUT: Final = 0.1
_SNR_CAP: Final = 5.0
_WEIGHT_FLOOR: Final = 0.15
_TIMESTEP_POWER: Final = 0.9
_STEPS: Final = 12_000
_RECIPE: Final = Recipe(lr=1.5e-3)
_GUIDANCE: Final = 3.5
_QUALITY_STEPS: Final = 20


def build_unet() -> UNet2DConditionModel:
    """Untrained weights: 16 x 16 x 4 latents, cross-attention at 8 x 8 and 4 x 4, 2.8 M parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Untrained weights: two layers, width 96. Embeddings start wide, or words stay alike for thousands of steps."""
    end = len(tokenizer) - 1  # start and end token are the two largest ids
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = CLIPTextModel(config)
    for name, weight in model.named_parameters():
        if "embedding" in name:
            nn.init.normal_(weight, std=0.5 if "token" in name else 0.2)
    return model


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion, with v-prediction and steps that reach t = 999."""
    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """Training inputs of the denoiser and its target."""

    z: Float[Tensor, "n 4 16 16"]
    t: Int[Tensor, " n"]
    velocity: Float[Tensor, "n 4 16 16"]
    weight: Float[Tensor, " n"]


def add_noise(clean: Float[Tensor, "n 4 16 16"], alphas_cumprod: Float[Tensor, " t"], draw: torch.Generator) -> Noised:
    """Noises each latent at its own timestep t = 1000 u^0.9.

    Target is v = alpha eps - sigma z0 (arXiv:2202.00512 App. D); its weight is min(SNR, 5) / (SNR + 1)
    (arXiv:2303.09556 Eq. 9, for v) plus a floor that keeps the high-noise end, where layout is decided, in view.
    """
    count = len(clean)
    noise = torch.randn(clean.shape, generator=draw).to(clean.device)
    drawn = torch.rand(count, generator=draw).pow(_TIMESTEP_POWER) * TRAIN_TIMESTEPS
    t = drawn.long().clamp(max=TRAIN_TIMESTEPS - 1).to(clean.device)
    kept = alphas_cumprod.to(clean.device)[t]
    alpha, sigma = (part.sqrt()[:, None, None, None] for part in (kept, 1 - kept))
    snr = kept / (1 - kept)
    return Noised(
        z=alpha * clean + sigma * noise,
        t=t,
        velocity=alpha * noise - sigma * clean,
        weight=snr.clamp(max=_SNR_CAP) / (snr + 1) + _WEIGHT_FLOOR,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionModel:
    """The pieces that training moves, and those it only uses."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    vae: AutoencoderTiny
    scheduler: DDIMScheduler

    def hidden(self, captions: tuple[str, ...]) -> Float[Tensor, "n 24 96"]:
        """Text encoder's last hidden states."""
        ids = encode(self.tokenizer, captions).to(self.text_encoder.device)
        return self.text_encoder(ids)[0]

    def velocity(
        self, z: Float[Tensor, "n 4 16 16"], t: Int[Tensor, " n"], hidden: Float[Tensor, "n 24 96"]
    ) -> Float[Tensor, "n 4 16 16"]:
        """The raw network output."""
        return self.unet(z, t, encoder_hidden_states=hidden, return_dict=False)[0]


def diffusion_loss(model: DiffusionModel, noised: Noised, captions: tuple[str, ...]) -> StepLoss:
    """Weighted squared error of the predicted velocity; the log also has the unweighted one."""
    error = (model.velocity(noised.z, noised.t, model.hidden(captions)) - noised.velocity).square().mean((1, 2, 3))
    total = 2.0 * (noised.weight * error).mean()
    return StepLoss(total=total, metrics={"loss": total, "v_mse": error.mean()})


class LatentPool:
    """Encoded scenes, kept in memory on the training device (4 KB each)."""

    def __init__(self, vae: AutoencoderTiny, seed: int, count: int) -> None:
        scenes: list[Scene] = []
        latents: list[Tensor] = []
        for chunk in scene_chunks(seed, count):
            scenes += chunk.scenes
            latents.append(encode_images(vae, chunk.images))
        self.scenes, self.latents = tuple(scenes), torch.cat(latents)

    def draw(self, rng: random.Random, size: int) -> tuple[Float[Tensor, "n 4 16 16"], tuple[str, ...]]:
        """``size`` latents with fresh captions; one in ten is empty, which trains the unconditional branch."""
        chosen = rng.choices(range(len(self.scenes)), k=size)
        captions = describe([self.scenes[index] for index in chosen], rng)
        dropped = tuple("" if rng.random() < _CAPTION_DROPOUT else caption for caption in captions)
        return self.latents[chosen], dropped


class DiffusionPart:
    """Trains UNet and text encoder together."""

    name = "diffusion"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``unet``, ``text_encoder``, ``scheduler`` and the index of ``pipeline``, anew at every checkpoint."""
        folder = context.out / "pipeline"
        model = self._build(folder, context)
        pool = LatentPool(
            model.vae, derive_seed(context.seed, self.name, "pool"), context.pool_size(cpu=30_000, cuda=200_000)
        )
        size = context.batch_size(cpu=32, cuda=512)

        def loss(step: int) -> StepLoss:
            seed = derive_seed(context.seed, self.name, step)
            clean, captions = pool.draw(stream(seed), size)
            return diffusion_loss(model, add_noise(clean, model.scheduler.alphas_cumprod, generator(seed)), captions)

        objective = Objective(
            name=self.name,
            module=nn.ModuleDict({"unet": model.unet, "text_encoder": model.text_encoder}),
            loss=loss,
            recipe=_RECIPE,
            export=lambda: save_diffusion(model, folder),
        )
        result = run_training(objective, context, steps=context.steps(_STEPS))
        return result.report(metrics=tier_quality(model, context))

    def _build(self, folder: Path, context: TrainingContext) -> DiffusionModel:
        tokenizer = load_tokenizer(folder)
        with initialised_by(context.seed, self.name):
            unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
        vae = load_autoencoder(folder)
        nn.Module.to(vae, context.device)  # the typed one; diffusers wraps it
        return DiffusionModel(
            unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, vae=vae, scheduler=build_scheduler()
        )


def save_diffusion(model: DiffusionModel, folder: Path) -> None:
    """Completes the pipeline folder that already holds ``vae`` and ``tokenizer``."""
    save_module(model.unet, folder / "unet")
    save_module(model.text_encoder, folder / "text_encoder")
    save_module(model.scheduler, folder / "scheduler")
    save_index(folder)


@torch.no_grad()
def sample_images(
    model: DiffusionModel, captions: tuple[str, ...], *, seed: int, steps: int = _QUALITY_STEPS
) -> UInt8[np.ndarray, "n 64 64 3"]:
    """DDIM images at guidance 3.5 (arXiv:2207.12598 Eq. 6); image i starts from noise of its own."""
    shape = (1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    noise = [torch.randn(shape, generator=generator(seed, "latent", index)) for index in range(len(captions))]
    z = torch.cat(noise).to(model.unet.device)
    hidden = torch.cat([model.hidden(("",) * len(captions)), model.hidden(captions)])
    scheduler: Any = DDIMScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps.to(z.device):
        free, guided = model.velocity(torch.cat([z, z]), t.expand(2 * len(z)), hidden).chunk(2)
        z = scheduler.step(free + _GUIDANCE * (guided - free), t, z).prev_sample
    return decode_latents(model.vae, z)


def tier_quality(model: DiffusionModel, context: TrainingContext) -> dict[str, float]:
    """Checker scores of sampled held-out captions, per tier."""
    count = context.pool_size(cpu=40)
    steps = min(_QUALITY_STEPS, context.budget.max_steps or _QUALITY_STEPS)
    metrics: dict[str, float] = {}
    for tier in TIERS:
        seed = derive_seed(context.seed, "held-out", tier)
        captions = scene_batch(seed, 0, count, tier=tier, detail="minimal").captions
        quality = scene_quality(sample_images(model, captions, seed=seed, steps=steps), captions)
        metrics |= {f"strict_tier{tier}": quality.strict, f"soft_tier{tier}": quality.soft}
    return metrics
