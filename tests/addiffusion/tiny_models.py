"""Pipelines with random weights, in the shape of SD 1.5 and of the embedded model, small enough for tests."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TEXT_WIDTH = 16


def save_sd15_like(folder: Path) -> Path:
    """77 tokens, AutoencoderKL, eps-prediction, and the PNDM scheduler SD 1.5 is shipped with (but one that ends at
    alpha = 1: SD 1.5's own leaves a little noise in, where this engine returns the clean prediction)."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.18215,
    )
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


def make_unet(sample_size: int = 8) -> UNet2DConditionModel:
    """Cross-attention at full, half and half resolution (down, middle, up)."""
    return UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def make_tokenizer(length: int) -> CLIPTokenizer:
    """Letters only; the special tokens come last, where CLIPTextModel looks for the end."""
    letters = string.ascii_lowercase
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length, pad_token="<|endoftext|>")


def _save(
    vae: AutoencoderKL | AutoencoderTiny, scheduler: DDIMScheduler | PNDMScheduler, tokens: int, folder: Path
) -> Path:
    tokenizer = make_tokenizer(tokens)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_sd3_transformer() -> SD3Transformer2DModel:
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
