"""Random weights in the shape of the full-size scorers, small enough for tests; and pictures to score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from addiffusion.scorers.images import ImageBatch

CPU = torch.device("cpu")
CLIP_NAME = "tiny-clip-of-the-tests"
END = 49407
"""CLIP's end token."""
PROMPTS = ("a red circle", "two small dogs asleep on a sofa", "fog")


def register_tiny_clip(folder: Path) -> str:
    """Make open_clip know a model of the ViT family with CLIP's own tokenizer, as ViT-L-14-quickgelu is."""
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / f"{CLIP_NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return CLIP_NAME


def make_pickscore() -> CLIPModel:
    """transformers' CLIPModel with CLIP's own vocabulary, of images 32 pixels wide."""
    size: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2
    }  # fmt: skip
    text = CLIPTextConfig(vocab_size=49408, eos_token_id=END, bos_token_id=END - 1, **size)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **size)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights wide enough that different pictures get different scores."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or name.endswith("class_embedding"):
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return model.eval()


def pictures(height: int, width: int, count: int = len(PROMPTS)) -> NDArray[np.uint8]:
    """Smooth colours with hard edges: resizing them wrongly shows."""
    y, x = np.mgrid[0:height, 0:width]
    images = np.zeros((count, height, width, 3), np.float64)
    for index in range(count):
        for channel in range(3):
            wave = np.sin(2 * np.pi * (index + 1) * (x / width + (channel + 1) * y / height) / 2)
            images[index, ..., channel] = 127 + 90 * wave
        images[index, height // 4 : height // 2, (index + 1) * width // 8 :, index % 3] = 255
    return images.clip(0, 255).astype(np.uint8)


def batch_of(images: NDArray[np.uint8]) -> ImageBatch:
    return ImageBatch.of(images, CPU)


def through_pil(transform: Any, images: NDArray[np.uint8]) -> torch.Tensor:
    """A reference library's own preprocessing, image by image."""
    return torch.stack([transform(Image.fromarray(image)) for image in images])
