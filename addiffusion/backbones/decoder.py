"""From clean latents to images, by a pipeline's autoencoder or a tiny stand-in for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from addiffusion.errors import ConfigError, WeightsError

STATISTICS = ("latents_mean", "latents_std")
"""Options of an autoencoder whose latents are normalised channel by channel."""


class LatentDecoder:
    """Decodes in float32, in equal batches: a row's image never depends on what else is decoded."""

    def __init__(
        self,
        autoencoder: Any,
        device: torch.device,
        *,
        scaling: Sequence[str],
        batch: int,
        tiling: bool = False,
        borrowed: bool = False,
    ) -> None:
        """Put an autoencoder to use.

        Args:
            autoencoder: it is moved and cast.
            device: where it works.
            scaling: options of the autoencoder by which the family's pipeline scales latents.
            batch: most latents per pass.
            tiling: decode each image in tiles where it is larger than the autoencoder's own; a tiny one needs none.
            borrowed: the autoencoder stays where it is and in its own precision.

        Raises:
            WeightsError: an option does not fit the latents.
        """
        self._autoencoder = autoencoder
        if not borrowed:
            autoencoder.to(device=device, dtype=torch.float32).eval()
            if device.type == "cpu":
                autoencoder.to(memory_format=torch.channels_last)  # convolutions run a third faster
            if tiling and isinstance(autoencoder, AutoencoderKL):
                autoencoder.enable_tiling()
        self._unscaled = _unscaling(autoencoder.config, scaling, device)
        self._batch = batch

    def __call__(self, z0: Float[Tensor, "b c h w"]) -> UInt8[np.ndarray, "b H W 3"]:
        """Images, in equal batches of at most ``batch`` rows."""
        batch = min(len(z0), self._batch)
        parts = [self._decode_batch(part, batch) for part in torch.split(z0, batch)]
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _decode_batch(self, z0: Float[Tensor, "m c h w"], batch: int) -> UInt8[Tensor, "m 3 H W"]:
        count = len(z0)
        image = self.raw(functional.pad(z0, (0, 0, 0, 0, 0, 0, 0, batch - count)))
        # The rounding of diffusers' VaeImageProcessor, so that images agree with the pipeline's to the last bit.
        return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)[:count]

    def raw(self, z0: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Images as the autoencoder gives them, from -1 to 1 or a little beyond, in float32."""
        return self._autoencoder.decode(self._unscaled(z0).to(self._autoencoder.dtype), return_dict=False)[0].float()


def _unscaling(config: Mapping[str, Any], scaling: Sequence[str], device: torch.device) -> Callable[[Tensor], Tensor]:
    """From the network's latents to the autoencoder's, in the order of the pipelines' own arithmetic."""
    scale = config["scaling_factor"]
    mean, std = (_per_channel(config, name, device) if name in scaling else None for name in STATISTICS)
    if mean is not None and std is not None:
        return lambda z0: z0 * std / scale + mean
    shift = (config.get("shift_factor") if "shift_factor" in scaling else None) or 0.0
    return lambda z0: z0 / scale + shift


def _per_channel(config: Mapping[str, Any], name: str, device: torch.device) -> Float[Tensor, "1 c 1 1"] | None:
    """None where the autoencoder has none."""
    values = config.get(name)
    if values is None:
        return None
    if len(values) != config["latent_channels"]:
        raise WeightsError(
            f"{name} has {len(values)} value(s) in vae/config.json, but the latents have {config['latent_channels']} "
            "channels: copy or download the whole folder again.",
            option=name,
        )
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def check_channels(network: int, latent: int) -> None:
    """Make sure that network and autoencoder are of the same latents.

    Raises:
        ConfigError: their channels differ.
    """
    if network != latent:
        raise ConfigError(
            f"The pipeline's network takes {network} channels but its autoencoder has {latent}: only plain "
            "text-to-image pipelines can be sampled (no inpainting, no depth).",
            network_channels=network,
            vae_channels=latent,
        )


def check_preview(channels: int, preview: int) -> None:
    """Make sure that a tiny autoencoder is of a model's latents.

    Raises:
        WeightsError: their channels differ.
    """
    if preview != channels:
        raise WeightsError(
            f"backbone.preview decodes latents of {preview} channels, and this model's have {channels}: give a tiny "
            "autoencoder of this model's latents.",
            channels=preview,
        )
