"""Aesthetic adapter: works on the CLIP embedding, so it costs no image forward of its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.embedded.aesthetic import load_aesthetic
from addiffusion.embedded.assets import weights_path


class AestheticScorer:
    """The embedded aesthetic head in fp32; 10 is a clean picture."""

    def __init__(self, device: torch.device, *, clip_width: int) -> None:
        self._head = load_aesthetic(weights_path("aesthetic"), clip_width=clip_width).to(device)

    @torch.inference_mode()
    def score(self, clip_embedding: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
        """Scores of L2-normalised CLIP image embeddings."""
        return self._head(clip_embedding)
