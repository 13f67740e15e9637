"""The embedded autoencoder: a diffusers ``AutoencoderTiny``, 64 x 64 x 3 to 16 x 16 x 8.

Every latent channel has mean 0 and variance 1 over the training scenes. So ``scaling_factor`` is 1, and what tells a
star from a circle is as loud to the denoiser as the background's tone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from jaxtyping import Float, UInt8
from torch import Tensor

from addiffusion.embedded.world.pixels import to_network, to_pixels
from addiffusion.errors import WeightsError
from addiffusion.weights import LOAD_FAILURES, gist, load_whole

LATENT_CHANNELS: Final = 8
_WIDTH: Final = 16
_ENCODE_BATCH: Final = 32


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
    advice = "train the part `autoencoder` first"
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
    return torch.cat([model.encoder(x.to(model.device)) for x in torch.split(to_network(images), _ENCODE_BATCH)])


@torch.no_grad()
def decode_latents(model: AutoencoderTiny, latents: Float[Tensor, "n c 16 16"]) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Pixels of latents of unit variance."""
    return to_pixels(model.decoder(latents))
