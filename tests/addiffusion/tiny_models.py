"""Pipelines with random weights of every family, small enough for tests."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TEXT_WIDTH = 16


def save_sd15_like(folder: Path) -> Path:
    """77 tokens, AutoencoderKL, eps-prediction, and the PNDM scheduler SD 1.5 is shipped with (but one that ends at
    alpha = 1: SD 1.5's own leaves a little noise in, where this engine returns the clean prediction)."""
    torch.manual_seed(0)
    vae = make_vae(scaling_factor=0.18215)
    return _save(vae, PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=True), 77, folder)


def save_embedded_like(folder: Path) -> Path:
    """24 tokens, AutoencoderTiny, v-prediction, DDIM with trailing spacing."""
    torch.manual_seed(1)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        scaling_factor=1.5,
    )
    scheduler = DDIMScheduler(**NOISE, clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing")
    return _save(vae, scheduler, 24, folder)


def save_sdxl_like(folder: Path) -> Path:
    """Two text encoders, added conditions, and the Euler scheduler SDXL is shipped with."""
    torch.manual_seed(2)
    tokenizer = make_tokenizer(77)
    StableDiffusionXLPipeline(
        vae=make_vae(scaling_factor=0.13),
        text_encoder=CLIPTextModel(make_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(make_text_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(77),
        unet=make_unet(
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def save_sd3_like(folder: Path) -> Path:
    """Two CLIPs and T5, joint attention, a shifted flow."""
    torch.manual_seed(3)
    tokenizer = make_tokenizer(77)
    StableDiffusion3Pipeline(
        transformer=make_sd3_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=make_vae(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=CLIPTextModelWithProjection(make_text_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(make_text_config(tokenizer)),
        tokenizer_2=make_tokenizer(77),
        text_encoder_3=make_t5(),
        tokenizer_3=make_t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def save_flux_like(folder: Path) -> Path:
    """CLIP for one vector, T5 for the tokens, packed latents."""
    torch.manual_seed(4)
    tokenizer = make_tokenizer(77)
    FluxPipeline(
        transformer=make_flux_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=make_vae(scaling_factor=0.36, shift_factor=0.12),
        text_encoder=CLIPTextModel(make_text_config(tokenizer, hidden_size=2 * TEXT_WIDTH)),
        tokenizer=tokenizer,
        text_encoder_2=make_t5(),
        tokenizer_2=make_t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def make_vae(*, scaling_factor: float, shift_factor: float | None = None) -> AutoencoderKL:
    """Twice as many pixels as latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    )


def make_unet(sample_size: int = 8, **options: Any) -> UNet2DConditionModel:
    """Cross-attention at full, half and half resolution (down, middle, up)."""
    return UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        **{"attention_head_dim": 2, "cross_attention_dim": TEXT_WIDTH, **options},
    ).eval()


def make_tokenizer(length: int) -> CLIPTokenizer:
    """Letters only; the special tokens come last, where CLIPTextModel looks for the end."""
    letters = string.ascii_lowercase
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length, pad_token="<|endoftext|>")


def make_text_config(tokenizer: CLIPTokenizer, *, hidden_size: int = TEXT_WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=32,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=2 * TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).eval()


def make_t5_tokenizer() -> T5Tokenizer:
    letters = [(letter, -1.0) for letter in string.ascii_lowercase]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0)


def _save(
    vae: AutoencoderKL | AutoencoderTiny, scheduler: DDIMScheduler | PNDMScheduler, tokens: int, folder: Path
) -> Path:
    tokenizer = make_tokenizer(tokens)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(make_text_config(tokenizer)),
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_sd3_transformer(**options: Any) -> SD3Transformer2DModel:
    """Three joint blocks of width 32, query and key normalised as in SD 3.5."""
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH * 2,
        caption_projection_dim=32,
        pooled_projection_dim=TEXT_WIDTH * 2,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
        **options,
    ).eval()


def make_flux_transformer() -> FluxTransformer2DModel:
    """Two double-stream blocks and a single-stream one of width 32, without embedded guidance as in schnell."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH * 2,
        pooled_projection_dim=TEXT_WIDTH * 2,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=False,
    ).eval()
