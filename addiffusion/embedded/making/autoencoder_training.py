"""The autoencoder's part of the training.

Training standardises every latent channel over its batch, and the statistics of the training scenes are folded into the
encoder's last convolution at the end. Noise on the latents keeps the code smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from addiffusion.embedded.making.part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.embedded.models.autoencoder import build_autoencoder, decode_latents, encode_images
from addiffusion.embedded.models.pipeline_folder import save_module
from addiffusion.embedded.world.data import SceneBatch, ScenePool, scene_chunks
from addiffusion.embedded.world.pixels import to_network
from addiffusion.embedded.world.quality import scene_quality
from addiffusion.seeds import derive_seed, generator

_LATENT_NOISE: Final = 0.2
"""Noise on training latents (of unit variance): the decoder must forgive a denoiser's small errors."""
_STEPS: Final = 4_500
_RECIPE: Final = Recipe(lr=3.0e-3, weight_decay=1.0e-4, warmup_steps=100, decay_from=0.0, ema_decay=0.995)


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
    """How far pixels decoded from noisy latents are from ``x``: absolute, squared, and absolute of image gradients.

    Args:
        model: whose decoder is trained.
        z: latents of unit variance.
        x: the pixels they encode, in [-1, 1].
        draw: CPU stream of the noise.
        noise: its standard deviation.
    """
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
