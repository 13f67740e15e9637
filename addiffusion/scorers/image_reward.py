"""ImageReward (arXiv:2304.05977) on current libraries: BLIP's vision tower and text encoder, and a linear head.

The published checkpoint loads by a renaming of its keys; nothing is converted. The original package pins a timm that
can't live beside open_clip 3 (docs/rewards.md has the way to run it all the same, and compare).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import timm
import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextModel

from addiffusion.config import ScorersSection
from addiffusion.scorers.aesthetic import linear_stack
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.images import ImageBatch, Preprocessing
from addiffusion.scorers.weights import WeightsFile
from addiffusion.text_cache import TextCache, one_by_one
from addiffusion.weights import LOAD_FAILURES

MEAN: Final = 0.16717362830052426
STD: Final = 1.0333394966054072
"""Of the raw output over the training set; the published score is standardised with them."""
MAX_TOKENS: Final = 35
_IMAGE_SIZE: Final = 224
_OWN_WORDS: Final = 2
"""BLIP's, which follow BERT's and are in no prompt."""
_VISION_MODEL: Final = "vit_large_patch16_224"
_UNUSED: Final = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""BLIP's contrastive projections and a constant buffer: in the checkpoint, but no part of the score."""
SPEC: Final = ScorerSpec(name="image_reward", unit="standard deviations", low=-2.5, high=2.5)

_WEIGHTS: Final = WeightsFile(
    key="scorers.image_reward.weights",
    filename="ImageReward.pt",
    origin="the hub repository zai-org/ImageReward (1.79 GB)",
)
_VOCABULARY: Final = WeightsFile(
    key="scorers.image_reward.tokenizer",
    filename="vocab.txt",
    origin="the hub repository google-bert/bert-base-uncased",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRewardShape:
    """Sizes of the model; the defaults are those of the published checkpoint."""

    vision: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Changes to timm's vit_large_patch16_224."""
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    """transformers' default of 8 loads just as well and is silently wrong by 0.03."""
    text_intermediate: int = 3072
    vocab_size: int = 30524
    """bert-base-uncased and BLIP's two own tokens."""
    max_positions: int = 512


class ImageRewardModel(nn.Module):
    """Standardised preference of an image for a prompt."""

    def __init__(self, shape: ImageRewardShape) -> None:
        super().__init__()
        self.vision = cast("VisionTransformer", timm.create_model(_VISION_MODEL, num_classes=0, **shape.vision))
        self.text = BlipTextModel(_text_config(shape, self.vision.num_features), add_pooling_layer=False)
        self.mlp = nn.ModuleDict({"layers": linear_stack(shape.text_width)})

    def forward(
        self, pixels: Float[Tensor, "n 3 224 224"], ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]
    ) -> Float[Tensor, " n"]:
        """(n,) the score, read at the first text position after it has attended to the whole image."""
        tokens = self.vision.forward_features(pixels)
        read = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device),
            is_decoder=False,
            return_dict=True,
        ).last_hidden_state
        raw = self.mlp["layers"](read[:, 0].float()).squeeze(-1)
        return (raw - MEAN) / STD


class ImageRewardScorer:
    """ImageReward in fp32."""

    spec = SPEC

    def __init__(self, model: ImageRewardModel, tokenizer: BertTokenizer, device: torch.device) -> None:
        self._model = model.eval().to(device)
        self._tokenizer = tokenizer
        self._prepare = Preprocessing(size=_IMAGE_SIZE)
        self._texts = TextCache(one_by_one(lambda prompt: self._encode(prompt).to(device)))

    @torch.inference_mode()
    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) standardised over the images of its training set: 0 is their mean, higher is better."""
        ids, mask = torch.stack(self._texts.rows(prompts)).unbind(dim=1)
        return self._model(self._prepare(images), ids, mask)

    def _encode(self, prompt: str) -> Int[Tensor, "2 token"]:
        """Token ids and mask. BLIP's [ENC] in place of [CLS] is left out, as ImageReward was trained without it."""
        encoded: Any = self._tokenizer(
            prompt, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        return torch.cat([encoded.input_ids, encoded.attention_mask])


def load_image_reward(section: ScorersSection, device: torch.device) -> ImageRewardScorer:
    """The published model.

    Raises:
        WeightsError: checkpoint or vocabulary are missing or do not fit.
    """
    path = _WEIGHTS.find(section.image_reward.weights)
    shape = ImageRewardShape()
    tokenizer = _fitting_tokenizer(_VOCABULARY.find(section.image_reward.tokenizer), shape.vocab_size - _OWN_WORDS)
    model = ImageRewardModel(shape)
    _WEIGHTS.fill(model, rehosted(_WEIGHTS.tensors(path)), path)
    return ImageRewardScorer(model, tokenizer, device)


def package_files(section: ScorersSection) -> tuple[Path, Path | None]:
    """Checkpoint and text configuration for the original package; without the latter it downloads its own.

    Raises:
        WeightsError: the checkpoint is missing.
    """
    weights = _WEIGHTS.find(section.image_reward.weights)
    beside = weights.parent / "med_config.json"
    return weights, beside if beside.is_file() else None


def _fitting_tokenizer(vocabulary: Path, known: int) -> BertTokenizer:
    """The tokenizer whose words are those the model knows."""
    try:
        tokenizer = bert_tokenizer(vocabulary)
    except LOAD_FAILURES as error:
        raise _VOCABULARY.misfit(vocabulary, error) from error
    if len(tokenizer) != known:
        raise _VOCABULARY.misfit(vocabulary, f"it has {len(tokenizer)} words, and the model knows {known}")
    return tokenizer


def bert_tokenizer(vocabulary: Path) -> BertTokenizer:
    """The uncased BERT tokenizer of a ``vocab.txt``."""
    words = vocabulary.read_text(encoding="utf-8").splitlines()
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)})


def rehosted(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published checkpoint under the names of ``ImageRewardModel``."""
    return {rehosted_name(name): tensor for name, tensor in checkpoint.items() if not name.startswith(_UNUSED)}


def rehosted_name(name: str) -> str:
    """A key of the published checkpoint as ``ImageRewardModel`` calls it."""
    return name.replace("blip.visual_encoder.", "vision.", 1).replace("blip.text_encoder.", "text.", 1)


def _text_config(shape: ImageRewardShape, image_width: int) -> BlipTextConfig:
    """Built as a decoder, for only then transformers adds the cross-attention; called as an encoder."""
    return BlipTextConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.text_width,
        encoder_hidden_size=image_width,
        intermediate_size=shape.text_intermediate,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        max_position_embeddings=shape.max_positions,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        is_decoder=True,
        use_cache=False,
    )
