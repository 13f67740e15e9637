"""DINO adapter: features whose cosine says how alike two pictures are."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

from addiffusion.embedded.assets import weights_path
from addiffusion.embedded.dino import load_dino

_WIDTH_ATTRIBUTE: Final = "num_features"


class DinoScorer:
    """The embedded feature model in fp32."""

    def __init__(self, device: torch.device) -> None:
        self._model = load_dino(weights_path("dino")).to(device)

    @property
    def width(self) -> int:
        """Width ``f`` of the features."""
        return int(getattr(self._model, _WIDTH_ATTRIBUTE))

    @torch.inference_mode()
    def embed_images(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """L2-normalised."""
        return F.normalize(self._model(x), dim=1)
