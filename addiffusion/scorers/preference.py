"""The preference model of the embedded world, in ImageReward's role: prompt and image in, preference out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.assets import weights_path
from addiffusion.embedded.models.preference import PreferenceModel, load_preference
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.clip import Tokenize
from addiffusion.scorers.images import ImageBatch
from addiffusion.scorers.network import network_view
from addiffusion.scorers.texts import TextCache


class PreferenceScorer:
    """The embedded preference model in fp32; it reads the ids of the embedded tokenizer."""

    spec = ScorerSpec(name="image_reward", unit="standard deviations", low=-3.0, high=3.0)

    def __init__(self, model: PreferenceModel, tokenize: Tokenize, device: torch.device) -> None:
        self._model = model.eval().to(device)
        self._token_ids = TextCache(lambda prompt: tokenize([prompt])[0].to(device))

    @torch.inference_mode()
    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """Standardised over clean and corrupted renders."""
        return self._model(network_view(images), self._token_ids.rows(prompts))


def embedded_preference(tokenize: Tokenize, device: torch.device) -> PreferenceScorer:
    """The preference model of the embedded world.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    return PreferenceScorer(load_preference(weights_path("preference")), tokenize, device)
