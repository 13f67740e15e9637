"""Preference adapter (ImageReward's role): prompt and image in, standardised preference out."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from addiffusion.embedded.assets import weights_path
from addiffusion.embedded.preference import load_preference


class PreferenceScorer:
    """The embedded preference model in fp32."""

    def __init__(self, device: torch.device) -> None:
        self._model = load_preference(weights_path("preference")).to(device)

    @torch.inference_mode()
    def score(self, x: Float[Tensor, "n 3 h w"], token_ids: Int[Tensor, "n l"]) -> Float[Tensor, " n"]:
        """Preference of each network-space image for its own prompt."""
        return self._model(x, token_ids)
