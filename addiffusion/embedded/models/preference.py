"""The embedded preference model: prompt and image in, one number out, higher is better (ImageReward's role).

Built like ImageReward (arXiv:2304.05977): an image tower, a text decoder that cross-attends to its tokens, and a
small MLP on the first text position; the output is standardised by a mean and a standard deviation stored with it.
The image tower is convolutional: at this size it learns shapes several times faster than a vision transformer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

from addiffusion.assets import REINSTALL
from addiffusion.embedded.models.folding import folded
from addiffusion.errors import WeightsError
from addiffusion.files import whole_folder, write_bytes, write_text
from addiffusion.weights import LOAD_FAILURES, fill, gist, read_tensors

_WEIGHTS_FILE: Final = "model.safetensors"
_CONFIG_FILE: Final = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig:
    """Shape of the model and the standardisation of its output."""

    vocab_size: int
    image_size: int = 64
    context_length: int = 24
    width: int = 96
    heads: int = 3
    text_layers: int = 2
    mean: float = 0.0
    std: float = 1.0


_STRIDE: Final = 8
"""Pixels per image token and side."""


class ResidualBlock(nn.Module):
    """x + f(x) with two 3 x 3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, stride=1)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """Same shape."""
        return F.gelu(x + self.second(self.first(x)))


def _convolution(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()
    )


class PreferenceModel(nn.Module):
    """Scores how well an image shows a prompt, and how cleanly."""

    def __init__(self, config: PreferenceConfig) -> None:
        super().__init__()
        width, patches = config.width, (config.image_size // _STRIDE) ** 2
        self.config = config
        self.image_tower = nn.Sequential(
            _convolution(3, width // 3, stride=2),
            _convolution(width // 3, 2 * width // 3, stride=2),
            _convolution(2 * width // 3, width, stride=2),
            ResidualBlock(width),
        )
        self.image_position = nn.Parameter(torch.randn(patches, width) * 0.02)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.token_position = nn.Parameter(torch.randn(config.context_length, width) * 0.02)
        self.text_decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, config.heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True),
            config.text_layers,
            norm=nn.LayerNorm(width),
        )
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, images: Float[Tensor, "n 3 h w"], token_ids: Int[Tensor, "n l"]) -> Float[Tensor, " n"]:
        """Standardised preference of each image for its own prompt.

        Args:
            images: network space, [-1, 1].
            token_ids: padded to the context length; padding equals the end token and follows it.
        """
        raw = self.judge(self.encode_image(images), token_ids)
        return (raw - self.config.mean) / self.config.std

    def encode_image(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p d"]:
        """Image tokens, to be judged against one or several prompts."""
        features: Tensor = self.image_tower(images)
        return features.flatten(2).transpose(1, 2) + self.image_position

    def judge(self, tokens: Float[Tensor, "n p d"], token_ids: Int[Tensor, "n l"]) -> Float[Tensor, " n"]:
        """Raw (not standardised) preference; its differences are Bradley-Terry logits."""
        text = self.token_embedding(token_ids) + self.token_position
        padding = _after_first_end(token_ids)
        decoded = self.text_decoder(text, tokens, tgt_key_padding_mask=padding)
        return self.head(decoded[:, 0]).squeeze(-1)


def _after_first_end(token_ids: Int[Tensor, "n l"]) -> Tensor:
    """True at the padding: every position after the first end token, which has the largest id."""
    ends = token_ids == token_ids.amax(dim=1, keepdim=True)
    return (ends.cumsum(dim=1) - ends.long()) > 0


def save_preference(model: PreferenceModel, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_folder(folder) as draft:
        write_text(draft / _CONFIG_FILE, json.dumps(asdict(model.config), indent=2) + "\n")
        write_bytes(draft / _WEIGHTS_FILE, save(weights))


def load_preference(folder: Path) -> PreferenceModel:
    """The model in evaluation mode on the CPU, as it scores fastest there.

    Raises:
        WeightsError: the folder's files are missing or do not fit together.
    """
    try:
        config = PreferenceConfig(**json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8")))
        model = PreferenceModel(config)
    except LOAD_FAILURES as error:
        raise WeightsError(
            f"The preference model at {folder} can't be built ({gist(error)}): {REINSTALL}.", path=str(folder)
        ) from error
    path = folder / _WEIGHTS_FILE
    fill(model, read_tensors(path, advice=REINSTALL), part="the preference model", source=path, advice=REINSTALL)
    folded(model.image_tower)
    return model.eval()
