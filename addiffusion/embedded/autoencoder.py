"""The embedded autoencoder: a diffusers ``AutoencoderTiny``, 64 x 64 x 3 to 16 x 16 x 4.

``scaling_factor`` is 1 / (spread of the raw latents), so the stock pipeline's ``decode(z / scaling_factor)`` gets
what the encoder gave, and the denoiser works on latents of unit variance: ``z = encoder(x) * scaling_factor``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from jaxtyping import Float, UInt8
from torch import Tensor

from addiffusion.embedded.data import SceneBatch, ScenePool, scene_chunks
from addiffusion.embedded.pipeline_folder import save_module
from addiffusion.embedded.pixels import to_network, to_pixels
from addiffusion.embedded.quality import scene_quality
from addiffusion.embedded.training_part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.errors import WeightsError
from addiffusion.seeds import derive_seed

LATENT_CHANNELS: Final = 4
_WIDTH: Final = 16
_LATENT_NOISE: Final = 0.05
"""Noise on training latents: the decoder must forgive a denoiser's small errors."""
_ENCODE_BATCH: Final = 32
_STEPS: Final = 7_000
_RECIPE: Final = Recipe(lr=3.0e-3, weight_decay=1.0e-4, warmup_steps=100, decay_from=0.0, ema_decay=0.995)


def build_autoencoder(scaling_factor: float = 1.0) -> AutoencoderTiny:
    """Untrained weights: 4x down, 4 latent channels, 0.07 M parameters."""
    return AutoencoderTiny(
        encoder_block_out_channels=(_WIDTH,) * 3,
        decoder_block_out_channels=(_WIDTH,) * 3,
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 1, 1),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=scaling_factor,
    )


def load_autoencoder(folder: Path) -> AutoencoderTiny:
    """The trained autoencoder of a pipeline folder, in evaluation mode.

    Raises:
        WeightsError: it is missing or does not fit.
    """
    try:
        model: Any = AutoencoderTiny.from_pretrained(str(folder / "vae"), low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"The autoencoder at {folder / 'vae'} can't be loaded ({error}); train the part `autoencoder` first.",
            path=str(folder / "vae"),
        ) from error
    return model.eval()


@torch.no_grad()
def encode_images(model: AutoencoderTiny, images: UInt8[np.ndarray, "n 64 64 3"]) -> Float[Tensor, "n 4 16 16"]:
    """Latents of unit variance on the model's device."""
    factor: float = model.config["scaling_factor"]
    return raw_latents(model, images) * factor


@torch.no_grad()
def raw_latents(model: AutoencoderTiny, images: UInt8[np.ndarray, "n 64 64 3"]) -> Float[Tensor, "n 4 16 16"]:
    """What the encoder gives, in batches that fit a processor's cache."""
    return torch.cat([model.encoder(x.to(model.device)) for x in to_network(images).split(_ENCODE_BATCH)])


@torch.no_grad()
def decode_latents(model: AutoencoderTiny, latents: Float[Tensor, "n 4 16 16"]) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Pixels of latents of unit variance."""
    factor: float = model.config["scaling_factor"]
    return to_pixels(model.decoder(latents / factor))


class AutoencoderPart:
    """Trains the autoencoder on rendered scenes; its reconstruction is the ceiling of everything after it."""

    name = "autoencoder"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``pipeline/vae``; reports PSNR and the checker's pass rate of reconstructions."""
        size = context.batch_size(cpu=16, cuda=256)
        pool = ScenePool(derive_seed(context.seed, self.name, "pool"), context.pool_size(cpu=20_000, cuda=60_000))
        with initialised_by(context.seed, self.name):
            model = build_autoencoder()

        def loss(step: int) -> StepLoss:
            batch = pool.batch(derive_seed(context.seed, self.name), step, size)
            return reconstruction_loss(model, to_network(batch.images).to(context.device))

        objective = Objective(name=self.name, module=model, loss=loss, recipe=_RECIPE)
        result = run_training(objective, context, steps=context.steps(_STEPS))
        held_out = tuple(scene_chunks(derive_seed(context.seed, self.name, "held-out"), context.pool_size(cpu=1_000)))
        model.register_to_config(scaling_factor=1.0 / latent_spread(model, held_out))
        save_module(model, context.out / "pipeline" / "vae")
        return result.report(metrics=_reconstruction_quality(model, held_out[0]))


def reconstruction_loss(model: AutoencoderTiny, x: Float[Tensor, "n 3 64 64"]) -> StepLoss:
    """Absolute and squared error, the same of image gradients (edges), and a pull of latents towards zero."""
    z: Tensor = model.encoder(x)
    error: Tensor = model.decoder(z + torch.randn_like(z) * _LATENT_NOISE) - x
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squared = error.square().mean()
    total = error.abs().mean() + squared + 0.5 * edges + 1.0e-3 * z.square().mean()
    return StepLoss(total=total, metrics={"loss": total, "mse": squared})


@torch.no_grad()
def latent_spread(model: AutoencoderTiny, batches: Sequence[SceneBatch]) -> float:
    """Standard deviation of raw latents, averaged over channels."""
    raw = torch.cat([raw_latents(model, batch.images) for batch in batches])
    return float(raw.transpose(0, 1).flatten(1).std(dim=1).mean())


def _reconstruction_quality(model: AutoencoderTiny, batch: SceneBatch) -> dict[str, float]:
    decoded = decode_latents(model, encode_images(model, batch.images))
    error = (decoded.astype(np.float64) - batch.images) / 255.0
    psnr = -10.0 * math.log10(max(1.0e-12, float(np.square(error).mean())))
    return {"psnr_db": psnr, "strict": scene_quality(decoded, batch.captions).strict}
