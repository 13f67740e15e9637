"""Aesthetic scores: heads on the CLIP embedding, so they cost no image forward of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.assets import weights_path
from addiffusion.config import ScorersSection
from addiffusion.embedded.models.aesthetic import load_aesthetic
from addiffusion.errors import ConfigError
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.clip import ClipTower
from addiffusion.scorers.images import ImageBatch
from addiffusion.scorers.weights import WeightsFile

_FILE: Final = WeightsFile(
    key="scorers.aesthetic.weights",
    filename="aesthetic-model.pth",
    origin="the hub repository trl-lib/ddpo-aesthetic-predictor, or as sac+logos+ava1-l14-linearMSE.pth from the "
    "GitHub repository christophschuhmann/improved-aesthetic-predictor",
)
_CLIP_WIDTH: Final = 768


class AestheticScorer:
    """A head on the L2-normalised embeddings of one CLIP."""

    spec = ScorerSpec(name="aesthetic", unit="points of ten", low=0.0, high=10.0, needs_prompt=False)

    def __init__(self, tower: ClipTower, head: Callable[[Tensor], Tensor]) -> None:
        self._tower = tower
        self._head = head

    @torch.inference_mode()
    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:  # noqa: ARG002 - the port's
        """About 0 to 10; for LAION's head photographs lie near 5 and good art near 6.5."""
        return self._head(self._tower.embed_images(images))


class LaionHead(nn.Module):
    """LAION's aesthetic predictor: five linear layers and no activation between them, as it was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linear_stack(_CLIP_WIDTH)

    def forward(self, embedding: Float[Tensor, "n 768"]) -> Float[Tensor, " n"]:
        """Points of ten."""
        return self.layers(embedding).squeeze(-1)


def linear_stack(width: int) -> nn.Sequential:
    """The head that LAION's predictor and ImageReward share; dropout keeps the layer numbers of their checkpoints."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )


def embedded_aesthetic(tower: ClipTower, device: torch.device) -> AestheticScorer:
    """The aesthetic head of the embedded world; 10 is a clean picture.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    return AestheticScorer(tower, load_aesthetic(weights_path("aesthetic"), clip_width=tower.width).to(device))


def load_laion(section: ScorersSection, tower: ClipTower, device: torch.device) -> AestheticScorer:
    """LAION's predictor on the CLIP in use.

    Raises:
        ConfigError: that CLIP is not a ViT-L/14.
        WeightsError: the head's weights are missing or do not fit.
    """
    if tower.width != _CLIP_WIDTH:
        raise ConfigError(
            f"scorers.clip.model={section.clip.model} has embeddings {tower.width} wide, but LAION's aesthetic "
            f"predictor needs the {_CLIP_WIDTH} of CLIP ViT-L/14: set scorers.clip.model=ViT-L-14-quickgelu.",
            width=tower.width,
        )
    path = _FILE.find(section.aesthetic.weights)
    head = LaionHead()
    _FILE.fill(head, _FILE.tensors(path), path)
    return AestheticScorer(tower, head.eval().to(device))
