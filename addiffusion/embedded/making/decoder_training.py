"""Training of the embedded decoders, for latents that no longer move: the one people see and the one the policy sees.

The autoencoder's first decoder only has to teach the encoder. The wider one keeps shapes apart that the first one
blurs; the preview is a tenth of it, since it runs at every decision. Both do their work below full
resolution, as in arXiv:1609.05158: there a convolution costs four times as much and adds little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from addiffusion.embedded.making.autoencoder_training import decoding_loss, reconstruction_quality
from addiffusion.embedded.making.part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.embedded.models.autoencoder import build_autoencoder, encode_images, load_autoencoder
from addiffusion.embedded.models.pipeline_folder import save_module
from addiffusion.embedded.world.data import ScenePool, scene_chunks, stream
from addiffusion.embedded.world.pixels import to_network
from addiffusion.seeds import derive_seed, generator

_TIER_WEIGHTS: Final = (0.15, 0.35, 0.5)
"""Small shapes are what blurs."""
_RECIPE: Final = Recipe(lr=2.0e-3, weight_decay=1.0e-4, warmup_steps=100, decay_from=0.2, ema_decay=0.995)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderPart:
    """Trains one decoder for the encoder of ``pipeline/vae``, which stays as it is."""

    name: str
    folder: str
    """Where the autoencoder with this decoder goes, below the weights folder."""
    width: int
    blocks: tuple[int, int, int]
    """Residual blocks at 16 x 16, 32 x 32 and 64 x 64."""
    noise: float
    """Spread of noise on the latents (of unit variance): the decoder must forgive what a denoiser leaves."""
    steps: int

    def train(self, context: TrainingContext) -> PartReport:
        """Writes the autoencoder; reports PSNR and the checker's pass rate of reconstructions."""
        model = self._build(context)
        pool = ScenePool(
            derive_seed(context.seed, self.name, "pool"),
            context.pool_size(cpu=30_000, cuda=60_000),
            tier_weights=_TIER_WEIGHTS,
        )
        latents = encode_images(model, pool.images)
        size = context.batch_size(cpu=16, cuda=256)

        def loss(step: int) -> StepLoss:
            seed = derive_seed(context.seed, self.name, step)
            rows = stream(seed).choices(range(len(pool.images)), k=size)
            x, z = to_network(pool.images[rows]).to(context.device), latents[rows].to(context.device)
            return decoding_loss(model, z, x, generator(seed), noise=self.noise)

        objective = Objective(name=self.name, module=model.decoder, loss=loss, recipe=_RECIPE, shards=context.shards())
        result = run_training(objective, context, steps=context.steps(self.steps))
        save_module(model.cpu(), context.out / self.folder)
        held_out = next(scene_chunks(derive_seed(context.seed, self.name, "held-out"), context.pool_size(cpu=500)))
        return result.report(metrics=reconstruction_quality(model, held_out))

    def _build(self, context: TrainingContext) -> AutoencoderTiny:
        with initialised_by(context.seed, self.name):
            model: Any = build_autoencoder(decoder_width=self.width, decoder_blocks=self.blocks)
        model.encoder.load_state_dict(load_autoencoder(context.out / "pipeline" / "vae").encoder.state_dict())
        return model.to(memory_format=torch.channels_last)


FINAL_DECODER: Final = DecoderPart(
    name="decoder", folder="pipeline/vae", width=32, blocks=(3, 3, 0), noise=0.1, steps=4_000
)
"""Decodes the image that is returned."""
PREVIEW_DECODER: Final = DecoderPart(
    name="preview", folder="preview", width=16, blocks=(2, 0, 0), noise=0.2, steps=4_000
)
"""Decodes what the policy looks at (the role of TAESD for Stable Diffusion)."""
