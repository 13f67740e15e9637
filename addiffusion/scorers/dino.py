"""DINO features (arXiv:2104.14294), whose cosine is the likeness of two pictures."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, Final

import timm
import torch
from jaxtyping import Float
from timm.data import config as timm_config
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import DinoSection
from addiffusion.errors import ConfigError
from addiffusion.scorers.images import ImageBatch, Preprocessing
from addiffusion.scorers.weights import WeightsFile
from addiffusion.weights import LOAD_FAILURES, named_misfit

_WIDTH_ATTRIBUTE: Final = "num_features"


class DinoFeatures:
    """A feature model in fp32."""

    def __init__(self, model: nn.Module, *, prepare: Callable[[ImageBatch], Tensor], device: torch.device) -> None:
        self._model = model.eval().to(device)
        self._prepare = prepare

    @property
    def width(self) -> int:
        """Width ``f`` of the features."""
        return int(getattr(self._model, _WIDTH_ATTRIBUTE))

    def embed_images(self, images: ImageBatch) -> Float[Tensor, "n f"]:
        """(n, f) L2-normalised features."""
        return images.once((id(self), "features"), lambda: self._embed(images))

    @torch.inference_mode()
    def _embed(self, images: ImageBatch) -> Float[Tensor, "n f"]:
        return F.normalize(self._model(self._prepare(images)), dim=1)


def load_timm_dino(section: ScorersSection, device: torch.device) -> DinoFeatures:
    """The timm model that ``scorers.dino`` names.

    Raises:
        ConfigError: timm has no such model.
        WeightsError: its weights are missing or do not fit.
    """
    dino = section.dino
    if not timm.is_model(dino.model):
        raise ConfigError(f"scorers.dino.model={dino.model} is no timm model; timm.list_models() has the names.")
    file = WeightsFile(
        key="scorers.dino.weights",
        filename="model.safetensors",
        origin=f"the hub repository timm/{dino.model}",
    )
    path = file.find(dino.weights or f"timm/{dino.model}")
    tensors = file.tensors(path)
    try:
        model = build_dino_model(dino, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
        reason = named_misfit(missing=_unfilled(model, tensors))
    except LOAD_FAILURES as error:
        raise file.misfit(path, error) from error
    if reason is not None:
        raise file.misfit(path, reason)
    return DinoFeatures(model, prepare=preprocessing_of(model, dino.image_size), device=device)


def _unfilled(model: nn.Module, tensors: dict[str, Tensor]) -> set[str]:
    """Tensors of ``model`` that the file lacks: timm leaves them random where it drops a classifier."""
    renamed = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    found: dict[str, Tensor] = tensors if renamed is None else renamed(tensors, model)
    return model.state_dict().keys() - found.keys()


def build_dino_model(section: DinoSection, **options: Any) -> nn.Module:
    """The timm model without a classifier: its output is the normalised class token."""
    size = {} if section.image_size is None else {"img_size": section.image_size}
    return timm.create_model(section.model, num_classes=0, **size, **options)


def preprocessing_of(model: nn.Module, image_size: int | None) -> Preprocessing:
    """The evaluation preprocessing timm keeps: shorter side to size / crop fraction, centre crop."""
    untyped: Any = timm_config
    config: dict[str, Any] = untyped.resolve_model_data_config(model)
    size = image_size or int(config["input_size"][-1])
    return Preprocessing(
        size=size,
        resize_to=math.floor(size / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
