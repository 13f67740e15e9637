"""The four scorers of a weights folder, called directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

from addiffusion.embedded.models.aesthetic import load_aesthetic
from addiffusion.embedded.models.clip import CLIP_WIDTH, image_embedding, load_clip, text_embedding
from addiffusion.embedded.models.dino import load_dino
from addiffusion.embedded.models.preference import load_preference
from addiffusion.embedded.world.pixels import to_network


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of ``n`` images."""

    clip: NDArray[np.float64]
    """Cosines."""
    aesthetic: NDArray[np.float64]
    """Points of ten."""
    preference: NDArray[np.float64]
    """Standardised over clean and corrupted renders."""
    features: NDArray[np.float64]
    """(n, f) DINO features of length 1."""


class Scorers:
    """CLIP, aesthetic, DINO and preference on the CPU."""

    def __init__(self, weights: Path) -> None:
        self._clip, self._tokenize = load_clip(weights / "clip")
        self._head = load_aesthetic(weights / "aesthetic", clip_width=CLIP_WIDTH)
        self._dino, self._preference = load_dino(weights / "dino"), load_preference(weights / "preference")

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and text embeddings."""
        ids = self._tokenize(list(prompts))
        return ids, text_embedding(self._clip, ids)

    @torch.inference_mode()
    def __call__(self, images: UInt8[np.ndarray, "n h w 3"], texts: tuple[Tensor, Tensor]) -> Scores:
        """Every score of each image for its own prompt, whose ids and embeddings ``read`` gave."""
        x = to_network(images)
        ids, text = texts
        embedding = image_embedding(self._clip, x)
        return Scores(
            clip=(embedding * text).sum(dim=1).double().numpy(),
            aesthetic=self._head(embedding).double().numpy(),
            preference=self._preference(x, ids).double().numpy(),
            features=F.normalize(self._dino(x), dim=1).double().numpy(),
        )
