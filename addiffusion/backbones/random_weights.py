"""Models of full shape with random weights: what a benchmark needs where no weights can be downloaded.

Only the denoiser has its true shape. Text encoders are shallow but as wide as the real ones, and the autoencoder is
small: neither is part of what is timed.
"""

from __future__ import annotations

import string
from typing import Any, Final, Literal, TypeAlias

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.backbones.sdxl import SdxlBackbone
from addiffusion.backbones.stable_diffusion import StableDiffusionBackbone
from addiffusion.config import BackboneSection
from addiffusion.devices import resolve_device
from addiffusion.quiet_loading import quiet_loading
from addiffusion.torch_typed import manual_seed

RandomKind: TypeAlias = Literal["sd15-random", "sdxl-random"]
_NOISE: Final[dict[str, Any]] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_TOKENS: Final = 77
_SDXL_UNET: Final[dict[str, Any]] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}


def random_backbone(kind: RandomKind, section: BackboneSection, **unet: Any) -> PipelineBackbone:
    """A backbone of the shape of SD 1.5 or SDXL; ``unet`` overrides options of its denoiser."""
    manual_seed(0)
    scheduler: Any = DDIMScheduler(**_NOISE, clip_sample=False, steps_offset=1)  # its tensors stay on the CPU
    with quiet_loading(), torch.device(resolve_device(section.device, key="backbone.device")):
        if kind == "sd15-random":
            pipeline = _sd15(
                {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, **unet}, scheduler
            )
            return StableDiffusionBackbone(pipeline, section)
        return SdxlBackbone(_sdxl({**_SDXL_UNET, **unet}, scheduler), section)


def _sd15(unet: dict[str, Any], scheduler: Any) -> StableDiffusionPipeline:
    tokenizer = _tokenizer()
    kind: Any = StableDiffusionPipeline
    return kind(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, unet["cross_attention_dim"])),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(unet: dict[str, Any], scheduler: Any) -> StableDiffusionXLPipeline:
    """The second encoder's width is what the size conditions leave over of the network's added input."""
    tokenizer = _tokenizer()
    pooled = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, unet["cross_attention_dim"] - pooled)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, pooled)),
        tokenizer=tokenizer,
        tokenizer_2=_tokenizer(),
        unet=UNet2DConditionModel(**unet),
        scheduler=scheduler,
        add_watermarker=False,
    )


def _vae() -> AutoencoderKL:
    kind: Any = AutoencoderKL
    return kind(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )


def _tokenizer() -> CLIPTokenizer:
    """Letters only; the special tokens come last, where CLIP looks for the end."""
    letters = string.ascii_lowercase
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    end = words[-1]
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=_TOKENS, pad_token=end)


def _text_config(tokenizer: Any, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
