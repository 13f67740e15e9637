"""CLIP: one image forward gives the embedding that every score on CLIP features starts from (arXiv:2103.00020)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

import open_clip
import torch
from jaxtyping import Float
from open_clip.model import CLIP
from torch import Tensor, nn

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import ClipSection
from addiffusion.errors import ConfigError
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.images import ImageBatch, Preprocessing
from addiffusion.scorers.weights import WeightsFile, looks_local
from addiffusion.text_cache import TextCache, one_by_one
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
        """Take an open_clip model.

        Args:
            model: with image and text encoder.
            tokenize: (n, token) ids of n prompts.
            prepare: (n, 3, size, size) input of the image encoder.
            device: where it runs.
        """
        self._model = cast("CLIP", model.eval().to(device))
        self._prepare = prepare
        self._device = device
        self.tokenize = tokenize
        self.width = int(self._embed_text("").shape[0])
        """Width ``e`` of the embeddings."""
        self._texts = TextCache(one_by_one(self._embed_text))

    @property
    def logit_scale(self) -> float:
        """Factor of cosines in the model; some scores are defined on that scale."""
        return float(self._model.logit_scale.exp())

    def embed_images(self, images: ImageBatch) -> Float[Tensor, "n e"]:
        """(n, e) L2-normalised image embeddings."""
        return images.once((id(self), "embedding"), lambda: self._embed_images(images))

    def embed_texts(self, prompts: Sequence[str]) -> Float[Tensor, "n e"]:
        """(n, e) L2-normalised text embeddings."""
        return torch.stack(self._texts.rows(prompts)) if prompts else torch.zeros((0, self.width), device=self._device)

    @torch.inference_mode()
    def _embed_images(self, images: ImageBatch) -> Float[Tensor, "n e"]:
        return self._model.encode_image(self._prepare(images), normalize=True)

    @torch.inference_mode()
    def _embed_text(self, prompt: str) -> Float[Tensor, " e"]:
        token_ids = self.tokenize([prompt]).to(self._device)
        return self._model.encode_text(token_ids, normalize=True)[0]


class ClipScorer:
    """Cosine of image and prompt. Other scales of the same number are 100 x (torchmetrics) and 2.5 x (CLIPScore)."""

    spec = ScorerSpec(name="clip", unit="cosine", low=-1.0, high=1.0)

    def __init__(self, tower: ClipTower) -> None:
        self._tower = tower

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) in [-1, 1]; 0.2 to 0.35 is usual for the full-size model."""
        return cosine(self._tower.embed_images(images), self._tower.embed_texts(prompts))


def cosine(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
    """(n,) cosine of each pair of L2-normalised rows (n, e)."""
    return (images * texts).sum(dim=1)


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
        tokenize = open_clip.get_tokenizer(name)
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
    """A tower around an open_clip model, with its own tokenizer.

    Args:
        name: open_clip's of the model.
        model: the network.
        device: where it runs.
        prepare: input of the image encoder; None takes the preprocessing that belongs to the model.
    """
    tokenize = open_clip.get_tokenizer(name)
    return ClipTower(model, tokenize=tokenize, prepare=prepare or preprocessing_of(model), device=device)


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """The preprocessing open_clip keeps with the model."""
    config = open_clip.get_model_preprocess_cfg(model)
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
