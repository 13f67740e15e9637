"""The embedded latent diffusion model: its networks, its noise schedule, and how latents are noised in training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from addiffusion.embedded.models.autoencoder import LATENT_CHANNELS
from addiffusion.embedded.models.pipeline_folder import save_index, save_module
from addiffusion.embedded.models.samples import SceneSampler
from addiffusion.embedded.models.tokenizer import CONTEXT_LENGTH, encode

LATENT_SIZE: Final = 16
TEXT_WIDTH: Final = 96
TRAIN_TIMESTEPS: Final = 1000
_CHANNELS: Final = (32, 64, 128)
_SNR_CAP: Final = 5.0
_WEIGHT_FLOOR: Final = 0.15
_TIMESTEP_POWER: Final = 0.9
_EVEN_SHARE: Final = 0.05
_SNR_SHIFT: Final = (32 / LATENT_SIZE) ** 2
"""The cosine schedule is made for 32 x 32; with a quarter of the cells the same noise hides more, so there is less."""
_SD_SCHEDULE: Final[dict[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": True,
}


def build_unet() -> UNet2DConditionModel:
    """Untrained weights: 16 x 16 x 8 latents, cross-attention at 8 x 8 and 4 x 4, 4.2 M parameters."""
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
    """The cosine schedule shifted for 16 x 16 latents; v-prediction; the last timestep is pure noise.

    log SNR(t) = 2 log(cot(pi t / 2)) + 2 log(32 / 16) (arXiv:2102.09672 Eq. 17, shifted as in arXiv:2301.11093 Eq. 4).

    Pure noise at the end (arXiv:2305.08891): otherwise 256 cells of one tone are legible there, training learns to read
    the background off them, and sampling starts from noise that says something else than the caption.
    """
    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        trained_betas=_betas(),
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def _betas() -> list[float]:
    time = (np.arange(TRAIN_TIMESTEPS) + 1) / TRAIN_TIMESTEPS
    noise_to_signal = np.tan(np.pi / 2 * time[:-1]) ** 2 / _SNR_SHIFT
    kept = np.concatenate([[1.0], 1 / (1 + noise_to_signal), [0.0]])
    return [float(beta) for beta in 1 - kept[1:] / kept[:-1]]


@cache
def _levels() -> Int[Tensor, " level"]:
    """Timesteps whose noise is that of Stable Diffusion's 1000 timesteps, from its least noise to its most."""
    kept = [scheduler.alphas_cumprod.double() for scheduler in (build_scheduler(), DDIMScheduler(**_SD_SCHEDULE))]
    own, wanted = (-torch.logit(alphas.clamp(1e-12, 1 - 1e-9)) for alphas in kept)
    return torch.searchsorted(own, wanted).clamp(max=TRAIN_TIMESTEPS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """Training inputs of the denoiser and its target."""

    z: Float[Tensor, "n c 16 16"]
    t: Int[Tensor, " n"]
    velocity: Float[Tensor, "n c 16 16"]
    weight: Float[Tensor, " n"]


def add_noise(clean: Float[Tensor, "n c 16 16"], alphas_cumprod: Float[Tensor, " t"], draw: torch.Generator) -> Noised:
    """Noises each latent at its own timestep.

    Noise levels come as often as under Stable Diffusion's schedule with t = 1000 u^0.9, which is where layout and shape
    are decided; the schedule that images are sampled with would spend most of the training on what is settled already.
    One in twenty timesteps is drawn evenly, so that none is unknown.

    Target is v = alpha eps - sigma z0 (arXiv:2202.00512 App. D); its weight is min(SNR, 5) / (SNR + 1)
    (arXiv:2303.09556 Eq. 9, for v) plus a floor that keeps the high-noise end, where layout is decided, in view.
    """
    count = len(clean)
    noise = torch.randn(clean.shape, generator=draw).to(clean.device)
    places = (torch.rand(count, generator=draw).pow(_TIMESTEP_POWER) * TRAIN_TIMESTEPS).long()
    evenly = torch.randint(TRAIN_TIMESTEPS, (count,), generator=draw)
    levels = _levels()[places.clamp(max=TRAIN_TIMESTEPS - 1)]
    t = torch.where(torch.rand(count, generator=draw) < _EVEN_SHARE, evenly, levels).to(clean.device)
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

    @property
    def sampler(self) -> SceneSampler:
        """Draws with the weights as they are now."""
        return SceneSampler(
            unet=self.unet,
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=self.scheduler,
        )

    def hidden(self, captions: tuple[str, ...]) -> Float[Tensor, "n 24 96"]:
        """Text encoder's last hidden states."""
        ids = encode(self.tokenizer, captions).to(self.text_encoder.device)
        return self.text_encoder(ids)[0]

    def velocity(
        self, z: Float[Tensor, "n c 16 16"], t: Int[Tensor, " n"], hidden: Float[Tensor, "n 24 96"]
    ) -> Float[Tensor, "n c 16 16"]:
        """The raw network output."""
        output: Any = self.unet(z, t, encoder_hidden_states=hidden, return_dict=False)
        return output[0]

    def save(self, folder: Path) -> None:
        """Completes the pipeline folder that already holds ``vae`` and ``tokenizer``."""
        save_module(self.unet, folder / "unet")
        save_module(self.text_encoder, folder / "text_encoder")
        save_module(self.scheduler, folder / "scheduler")
        save_index(folder)
