"""Training of the embedded decoder: a wider one, for latents that no longer move.

The autoencoder's first decoder only has to teach the encoder. This one is what people see: with the encoder frozen and
less noise it keeps shapes apart that the first one blurs. Its work is done at 32 x 32, as in arXiv:1609.05158: at
full resolution a convolution costs four times as much and adds little.
"""

from __future__ import annotations

from typing import Final

from addiffusion.embedded.autoencoder import (
    build_autoencoder,
    decoding_loss,
    encode_images,
    load_autoencoder,
    reconstruction_quality,
)
from addiffusion.embedded.data import ScenePool, scene_chunks, stream
from addiffusion.embedded.pipeline_folder import save_module
from addiffusion.embedded.pixels import to_network
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

_WIDTH: Final = 32
_BLOCKS: Final = (3, 3, 0)
_LATENT_NOISE: Final = 0.1
"""Noise on the latents (of unit variance): the decoder must forgive a denoiser's small errors."""
_TIER_WEIGHTS: Final = (0.15, 0.35, 0.5)
"""Small shapes are what blurs."""
_STEPS: Final = 4_000
_RECIPE: Final = Recipe(lr=2.0e-3, weight_decay=1.0e-4, warmup_steps=100, decay_from=0.2, ema_decay=0.995)


class DecoderPart:
    """Trains the decoder of ``pipeline/vae`` anew; the encoder stays as it is."""

    name = "decoder"

    def train(self, context: TrainingContext) -> PartReport:
        """Rewrites ``pipeline/vae``; reports PSNR and the checker's pass rate of reconstructions."""
        folder = context.out / "pipeline"
        with initialised_by(context.seed, self.name):
            model = build_autoencoder(decoder_width=_WIDTH, decoder_blocks=_BLOCKS)
        model.encoder.load_state_dict(load_autoencoder(folder).encoder.state_dict())
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
            x = to_network(pool.images[rows]).to(context.device)
            return decoding_loss(model, latents[rows].to(context.device), x, generator(seed), noise=_LATENT_NOISE)

        objective = Objective(name=self.name, module=model.decoder, loss=loss, recipe=_RECIPE, shards=context.shards())
        result = run_training(objective, context, steps=context.steps(_STEPS))
        save_module(model.cpu(), folder / "vae")
        held_out = next(scene_chunks(derive_seed(context.seed, self.name, "held-out"), context.pool_size(cpu=500)))
        return result.report(metrics=reconstruction_quality(model, held_out))
