"""The embedded CLIP: a residual image tower and a small text tower that open_clip loads from a local folder.

A convolutional tower, because at this size it learns shapes several times faster than a vision transformer (measured:
R@1 of 100 after 110 CPU seconds 0.83 against 0.53).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save
from torch import Tensor, nn
from transformers import CLIPTokenizer

from addiffusion.assets import REINSTALL
from addiffusion.embedded.models.folding import folded
from addiffusion.embedded.models.tokenizer import CONTEXT_LENGTH
from addiffusion.errors import WeightsError
from addiffusion.files import whole_folder, write_bytes, write_text
from addiffusion.weights import LOAD_FAILURES, gist, read_tensors, require_fit, resized

CLIP_WIDTH: Final = 128
"""Width of image and text embeddings."""
_IMAGE_SIZE: Final = 64
_VISION: Final[dict[str, Any]] = {"image_size": _IMAGE_SIZE, "layers": (1, 1, 1, 1), "width": 16, "head_width": 64}
_TEXT: Final[dict[str, Any]] = {
    "context_length": CONTEXT_LENGTH,
    "width": 96,
    "heads": 3,
    "layers": 2,
    "mlp_ratio": 3.0,
}
_TOKEN_STD: Final = 0.3
"""Spread of the initial word embeddings: the usual 0.02 leaves the words of a tiny vocabulary alike for long."""
_WEIGHTS_FILE: Final = "open_clip_model.safetensors"
_CONFIG_FILE: Final = "open_clip_config.json"

Tokenize = Callable[[list[str]], Int[Tensor, "n l"]]
"""Texts to token ids at the model's context length."""


def build_clip(vocab_size: int) -> CLIP:
    """Untrained weights, drawn from torch's global stream."""
    model = CLIP(CLIP_WIDTH, CLIPVisionCfg(**_VISION), CLIPTextCfg(vocab_size=vocab_size, **_TEXT))
    nn.init.normal_(model.token_embedding.weight, std=_TOKEN_STD)
    return model


def image_embedding(model: CLIP, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
    """L2-normalised embeddings of network-space images."""
    return model.encode_image(x, normalize=True)


def text_embedding(model: CLIP, token_ids: Int[Tensor, "n l"]) -> Float[Tensor, "n e"]:
    """L2-normalised embeddings of token ids."""
    return model.encode_text(token_ids, normalize=True)


def save_clip(model: CLIP, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a folder that ``open_clip.create_model_and_transforms("local-dir:<folder>")`` loads."""
    text = {**_TEXT, "vocab_size": len(tokenizer), "hf_tokenizer_name": "local"}
    grey = [0.5, 0.5, 0.5]
    config = {
        "model_cfg": {"embed_dim": CLIP_WIDTH, "vision_cfg": _VISION, "text_cfg": text},
        "preprocess_cfg": {"size": _IMAGE_SIZE, "mean": grey, "std": grey, "resize_mode": "squash"},
    }
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_folder(folder) as draft:
        write_text(draft / _CONFIG_FILE, json.dumps(config, indent=2) + "\n")
        write_bytes(draft / _WEIGHTS_FILE, save(weights))
        tokenizer.save_pretrained(str(draft))  # pyright: ignore[reportUnknownMemberType] - its options have no types


def load_clip(folder: Path) -> tuple[CLIP, Tokenize]:
    """Model and tokenizer, loaded by open_clip itself; the model as it scores fastest on a CPU.

    Raises:
        WeightsError: the folder's files are missing or do not fit together.
    """
    name, path = f"local-dir:{folder}", folder / _WEIGHTS_FILE
    tensors = read_tensors(path, advice=REINSTALL)
    try:
        model, _, _ = open_clip.create_model_and_transforms(name)
        tokenizer = open_clip.get_tokenizer(name)
    except LOAD_FAILURES as error:
        raise WeightsError(f"The CLIP model at {folder} can't be loaded ({gist(error)}): {REINSTALL}.") from error
    require_fit(resized(model, tensors), part="the CLIP model", source=path, advice=REINSTALL)
    clip = cast("CLIP", model.eval())
    folded(clip.visual)
    return clip, tokenizer


def similarities(
    queries: Float[Tensor, "n e"], keys: Float[Tensor, "m e"], scale: Float[Tensor, ""]
) -> Float[Tensor, "n m"]:
    """Scaled cosines (arXiv:2103.00020 Fig. 3); the scale is capped as there, at 100."""
    return scale.exp().clamp(max=100.0) * queries @ keys.T


def retrieval(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"], *, candidates: int) -> float:
    """R@1: how often an image's own caption is the best of ``candidates`` captions."""
    hits = [
        (images[start : start + candidates] @ texts[start : start + candidates].T).argmax(dim=1)
        == torch.arange(candidates)
        for start in range(0, len(images) - candidates + 1, candidates)
    ]
    return float(torch.cat(hits).float().mean())
