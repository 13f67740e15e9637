"""HPS v2.1 (arXiv:2306.09341): a CLIP ViT-H/14 tuned on human choices; the score is its cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.config import ScorersSection
from addiffusion.errors import ConfigError
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.clip import ClipTower, cosine, preprocessing_of, tower_of
from addiffusion.scorers.images import ImageBatch
from addiffusion.scorers.weights import WeightsFile

_FILE: Final = WeightsFile(
    key="scorers.hps.weights",
    filename="HPS_v2.1_compressed.pt",
    origin="the hub repository xswu/HPSv2 (1.97 GB)",
)


class HpsScorer:
    """HPS v2.1 in fp32, on the plain cosine scale. Scores of v2.0 can't be compared with it."""

    spec = ScorerSpec(name="hps", unit="cosine", low=0.0, high=0.4)

    def __init__(self, tower: ClipTower) -> None:
        self._tower = tower

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) around 0.2 to 0.35."""
        return cosine(self._tower.embed_images(images), self._tower.embed_texts(prompts))


def load_hps(section: ScorersSection, device: torch.device) -> HpsScorer:
    """HPS v2.1 from its own checkpoint.

    Raises:
        ConfigError: open_clip has no such model.
        WeightsError: the checkpoint is missing or does not fit.
    """
    name = section.hps.model
    if name not in open_clip.list_models():
        raise ConfigError(f"scorers.hps.model={name} is no open_clip model; HPS v2.1 is a ViT-H-14.", model=name)
    path = _FILE.find(section.hps.weights)
    model = open_clip.create_model(name)
    _FILE.fill(model, _FILE.tensors(path), path)
    return hps_of(name, model, device)


def hps_of(name: str, model: nn.Module, device: torch.device) -> HpsScorer:
    """The scorer around an open_clip model. Unlike CLIP, HPS sees the whole of an oblong image, between black bars."""
    prepare = replace(preprocessing_of(model), resize_mode="longest")
    return HpsScorer(tower_of(name, model, device=device, prepare=prepare))
