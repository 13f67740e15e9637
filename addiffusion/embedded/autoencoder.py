"""The embedded autoencoder: a diffusers ``AutoencoderTiny``, 64 x 64 x 3 to 16 x 16 x 8, and its encoder's training.

Every latent channel has mean 0 and variance 1 over the training scenes: training standardises them, and the statistics
are folded into the encoder's last convolution at the end. So ``scaling_factor`` is 1, and what tells a star from a
circle is as loud to the denoiser as the background's tone. Noise on the latents keeps the code smooth.
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
from addiffusion.seeds import derive_seed, generator
from addiffusion.weights import LOAD_FAILURES, gist, load_whole

LATENT_CHANNELS: Final = 8
_WIDTH: Final = 16
_LATENT_NOISE: Final = 0.2
"""Noise on training latents (of unit variance): the decoder must forgive a denoiser's small errors."""
_ENCODE_BATCH: Final = 32
_STEPS: Final = 4_500
_RECIPE: Final = Recipe(lr=3.0e-3, weight_decay=1.0e-4, warmup_steps=100, decay_from=0.0, ema_decay=0.995)


def build_autoencoder(
    *, decoder_width: int = _WIDTH, decoder_blocks: tuple[int, int, int] = (2, 1, 1)
) -> AutoencoderTiny:
    """Untrained weights: 4x down, 8 latent channels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(_WIDTH,) * 3,
        decoder_block_out_channels=(decoder_width,) * 3,
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=decoder_blocks,
        latent_channels=LATENT_CHANNELS,
    )


def load_autoencoder(folder: Path) -> AutoencoderTiny:
    """A trained autoencoder's own folder, in evaluation mode and the memory format that is fastest on a CPU.

    Raises:
        WeightsError: it is missing or does not fit.
    """
    advice = f"train the part `{AutoencoderPart.name}` first"
    try:
        model = load_whole(AutoencoderTiny, str(folder), part="the autoencoder", named=str(folder), advice=advice)
    except LOAD_FAILURES as error:
        raise WeightsError(
            f"The autoencoder at {folder} can't be loaded ({gist(error)}); {advice}.", path=str(folder)
        ) from error
    return model.eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def encode_images(model: AutoencoderTiny, images: UInt8[np.ndarray, "n 64 64 3"]) -> Float[Tensor, "n c 16 16"]:
    """Latents of unit variance on the model's device, in batches that fit a processor's cache."""
    return torch.cat([model.encoder(x.to(model.device)) for x in to_network(images).split(_ENCODE_BATCH)])


@torch.no_grad()
def decode_latents(model: AutoencoderTiny, latents: Float[Tensor, "n c 16 16"]) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Pixels of latents of unit variance."""
    return to_pixels(model.decoder(latents))


class AutoencoderPart:
    """Trains the autoencoder on rendered scenes; its reconstruction is the ceiling of everything after it."""

    name = "autoencoder"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``pipeline/vae``; reports PSNR and the checker's pass rate of reconstructions."""
        size = context.batch_size(cpu=16, cuda=256)
        pool = ScenePool(derive_seed(context.seed, self.name, "pool"), context.pool_size(cpu=30_000, cuda=60_000))
        with initialised_by(context.seed, self.name):
            model = build_autoencoder()

        def loss(step: int) -> StepLoss:
            batch = pool.batch(derive_seed(context.seed, self.name), step, size)
            draw = generator(context.seed, self.name, "noise", step)
            x = to_network(batch.images).to(context.device)
            return decoding_loss(model, standardised(model.encoder(x)), x, draw, noise=_LATENT_NOISE)

        objective = Objective(name=self.name, module=model, loss=loss, recipe=_RECIPE, shards=context.shards())
        result = run_training(objective, context, steps=context.steps(_STEPS))
        held_out = tuple(scene_chunks(derive_seed(context.seed, self.name, "held-out"), context.pool_size(cpu=1_000)))
        fold_statistics(model, held_out)
        save_module(model, context.out / "pipeline" / "vae")
        return result.report(metrics=reconstruction_quality(model, held_out[0]))


def decoding_loss(
    model: AutoencoderTiny,
    z: Float[Tensor, "n c 16 16"],
    x: Float[Tensor, "n 3 64 64"],
    draw: torch.Generator,
    *,
    noise: float,
) -> StepLoss:
    """How far pixels decoded from noisy latents are from ``x``: absolute, squared, and absolute of image gradients."""
    noisy = z + noise * torch.randn(z.shape, generator=draw).to(z.device)
    error: Tensor = model.decoder(noisy) - x
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squared = error.square().mean()
    total = error.abs().mean() + squared + 0.5 * edges
    return StepLoss(total=total, metrics={"loss": total, "mse": squared})


def standardised(z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Mean 0 and variance 1 per channel over the batch."""
    return (z - z.mean((0, 2, 3), keepdim=True)) / z.std((0, 2, 3), keepdim=True).clamp_min(1.0e-3)


@torch.no_grad()
def fold_statistics(model: AutoencoderTiny, batches: Sequence[SceneBatch]) -> None:
    """Makes the encoder itself give standardised latents, by the statistics over ``batches``."""
    raw = torch.cat([encode_images(model, batch.images) for batch in batches]).transpose(0, 1).flatten(1)
    last: Any = model.encoder.layers[-1]
    spread = raw.std(dim=1)
    last.weight.div_(spread[:, None, None, None])
    last.bias.sub_(raw.mean(dim=1)).div_(spread)


def reconstruction_quality(model: AutoencoderTiny, batch: SceneBatch) -> dict[str, float]:
    """PSNR in decibels, and the share of reconstructions that pass the checker."""
    decoded = decode_latents(model, encode_images(model, batch.images))
    error = (decoded.astype(np.float64) - batch.images) / 255.0
    psnr = -10.0 * math.log10(max(1.0e-12, float(np.square(error).mean())))
    return {"psnr_db": psnr, "strict": scene_quality(decoded, batch.captions).strict}
