"""CLIP: one image forward gives the embedding that every score on CLIP features starts from (arXiv:2103.00020)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import open_clip
import torch
from jaxtyping import Float
from open_clip.model import CLIP
from torch import Tensor, nn

from addiffusion.assets import weights_path
from addiffusion.config import ScorersSection
from addiffusion.config.scorers import ClipSection
from addiffusion.embedded.models.clip import CLIP_WIDTH, load_clip
from addiffusion.errors import ConfigError
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.images import ImageBatch, Preprocessing
from addiffusion.scorers.network import network_view
from addiffusion.scorers.texts import TextCache
from addiffusion.scorers.weights import WeightsFile, looks_local
from addiffusion.weights import LOAD_FAILURES, resized

_log = logging.getLogger(__name__)

Tokenize = Callable[[list[str]], Tensor]
_FOLDER: Final = WeightsFile(
    key="scorers.clip.model",
    filename="open_clip_config.json",
    origin="a folder in the layout of open_clip's hub repositories: configuration, weights and tokenizer",
)


class ClipTower:
    """A CLIP model in fp32. Images of one batch and prompts seen before are embedded once."""

    def __init__(
        self, model: nn.Module, *, tokenize: Tokenize, prepare: Callable[[ImageBatch], Tensor], device: torch.device
    ) -> None:
        self._model = cast("CLIP", model.eval().to(device))
        self._prepare = prepare
        self._device = device
        self.tokenize = tokenize
        self.width = int(self._embed_text("").shape[0])
        """Width ``e`` of the embeddings."""
        self._texts = TextCache(self._embed_text)
        self.image_forwards = 0
        """Image batches seen: tests check that scores share a forward."""

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines with; some scores are defined on that scale."""
        return float(self._model.logit_scale.exp())

    def embed_images(self, images: ImageBatch) -> Float[Tensor, "n e"]:
        """L2-normalised."""
        return images.once((id(self), "embedding"), lambda: self._embed_images(images))

    def embed_texts(self, prompts: Sequence[str]) -> Float[Tensor, "n e"]:
        """L2-normalised."""
        return self._texts.rows(prompts) if prompts else torch.zeros((0, self.width), device=self._device)

    @torch.inference_mode()
    def _embed_images(self, images: ImageBatch) -> Float[Tensor, "n e"]:
        self.image_forwards += 1
        return cast("Tensor", self._model.encode_image(self._prepare(images), normalize=True))

    @torch.inference_mode()
    def _embed_text(self, prompt: str) -> Float[Tensor, " e"]:
        token_ids = self.tokenize([prompt]).to(self._device)
        return cast("Tensor", self._model.encode_text(token_ids, normalize=True))[0]


class ClipScorer:
    """Cosine of image and prompt. Other scales of the same number are 100 x (torchmetrics) and 2.5 x (CLIPScore)."""

    spec = ScorerSpec(name="clip", unit="cosine", low=-1.0, high=1.0)

    def __init__(self, tower: ClipTower) -> None:
        self._tower = tower

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """In [-1, 1]; 0.2 to 0.35 is usual for the full-size model."""
        return cosine(self._tower.embed_images(images), self._tower.embed_texts(prompts))


def cosine(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
    """Cosine of L2-normalised rows."""
    return (images * texts).sum(dim=1)


def embedded_tower(device: torch.device) -> ClipTower:
    """The CLIP of the embedded world.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    model, tokenize = load_clip(weights_path("clip"))
    tower = ClipTower(model, tokenize=tokenize, prepare=network_view, device=device)
    assert tower.width == CLIP_WIDTH
    return tower


def load_tower(section: ScorersSection, device: torch.device) -> ClipTower:
    """The CLIP that ``scorers.clip`` names.

    Raises:
        ConfigError: open_clip has no such model.
        WeightsError: its weights are missing or do not fit.
    """
    name, weights = _resolve(section.clip)
    file = _FOLDER if weights is None else _weights_of(section.clip.model)
    is_file = weights is not None and Path(weights).is_file()
    tensors = file.tensors(Path(weights)) if weights is not None and is_file else {}
    try:
        model = open_clip.create_model(name, weights, require_pretrained=True, weights_only=True)
        tokenize = cast("Tokenize", open_clip.get_tokenizer(name))
    except LOAD_FAILURES as error:
        raise file.misfit(weights or section.clip.model, error) from error
    reason = resized(model, tensors)
    if reason is not None:
        raise file.misfit(str(weights), reason)
    if is_file:
        _warn_of_activation(name)
    return ClipTower(model, tokenize=tokenize, prepare=preprocessing_of(model), device=device)


def _warn_of_activation(name: str) -> None:
    """A tag of open_clip says which activation its weights were trained with; a file does not."""
    twin = f"{name}-quickgelu"
    if twin in open_clip.list_models():
        _log.warning(
            "scorers.clip.weights is a file, which does not say its activation: weights of OpenAI and some others "
            "score wrongly as %s and need scorers.clip.model=%s.",
            name,
            twin,
        )


def tower_of(name: str, model: nn.Module, *, device: torch.device, prepare: Preprocessing | None = None) -> ClipTower:
    """A tower around an open_clip ``model``, with the tokenizer and the preprocessing that belong to ``name``."""
    tokenize = cast("Tokenize", open_clip.get_tokenizer(name))
    return ClipTower(model, tokenize=tokenize, prepare=prepare or preprocessing_of(model), device=device)


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """The preprocessing open_clip keeps with the model."""
    config: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    return Preprocessing(
        size=int(size if isinstance(size, int) else size[0]),
        resize_mode=config["resize_mode"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _resolve(section: ClipSection) -> tuple[str, str | None]:
    """open_clip's name of the model, and the file or tag with its weights."""
    name, weights, file = section.model, section.weights, _weights_of(section.model)
    folder = Path(name)
    if folder.is_dir():
        return f"local-dir:{folder}", None
    if looks_local(name):
        raise _FOLDER.missing(name, "no such folder exists")
    if name not in open_clip.list_models():
        raise ConfigError(
            f"scorers.clip.model={name} is neither an open_clip model nor a folder with {_FOLDER.filename}; "
            "open_clip.list_models() has the names.",
            model=name,
        )
    if weights is None:
        raise file.missing("null", f"only a model folder brings its own weights, and {name} is none")
    is_tag = weights in open_clip.list_pretrained_tags_by_model(name)
    return name, weights if is_tag else str(file.find(weights))


def _weights_of(model: str) -> WeightsFile:
    return WeightsFile(
        key="scorers.clip.weights",
        filename="open_clip_model.safetensors",
        origin=f"the hub repository of open_clip's weights for {model}; those of OpenAI's ViT-L/14 are "
        "timm/vit_large_patch14_clip_224.openai (1.71 GB)",
    )
