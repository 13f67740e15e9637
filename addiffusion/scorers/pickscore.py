"""PickScore (arXiv:2305.01569): a CLIP ViT-H/14 tuned on the choices of Pick-a-Pic's users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)
from transformers import CLIPModel

from addiffusion.config import ScorersSection
from addiffusion.quiet_loading import quiet_loading
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.images import ImageBatch, Preprocessing
from addiffusion.scorers.weights import WeightsFile, looks_local
from addiffusion.text_cache import TextCache, one_by_one
from addiffusion.weights import LOAD_FAILURES, load_whole

_FILE: Final = WeightsFile(
    key="scorers.pickscore.weights",
    filename="config.json",
    origin="the hub repository yuvalkirstain/PickScore_v1 (3.94 GB, with model.safetensors)",
)


class PickScoreScorer:
    """PickScore in fp32: the cosine times the model's logit scale, so that differences are log odds of a choice."""

    spec = ScorerSpec(name="pickscore", unit="log odds", low=10.0, high=30.0)

    def __init__(self, model: CLIPModel, device: torch.device) -> None:
        self._model = cast("Any", model).eval().to(device)
        self._prepare = Preprocessing(size=int(self._model.config.vision_config.image_size))
        self._tokenize = open_clip.SimpleTokenizer(
            context_length=self._model.config.text_config.max_position_embeddings
        )
        self._device = device
        self._texts = TextCache(one_by_one(self._embed_text))

    @torch.inference_mode()
    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) around 17 to 25. Only differences between images of one prompt mean something."""
        features = self._model.get_image_features(pixel_values=self._prepare(images)).pooler_output
        cosines = (F.normalize(features, dim=1) * torch.stack(self._texts.rows(prompts))).sum(dim=1)
        return self._model.logit_scale.exp() * cosines

    @torch.inference_mode()
    def _embed_text(self, prompt: str) -> Float[Tensor, " e"]:
        """CLIP's own tokens. What pads them is never read: attention is causal and the end token is pooled."""
        ids = self._tokenize([prompt]).to(self._device)
        return F.normalize(self._model.get_text_features(input_ids=ids).pooler_output, dim=1)[0]


def load_pickscore(section: ScorersSection, device: torch.device) -> PickScoreScorer:
    """The published model.

    Raises:
        WeightsError: its folder is missing, damaged or incomplete, or of another model.
    """
    source = section.pickscore.weights
    if looks_local(source) and not Path(source).is_dir():
        raise _FILE.missing(source, "it is no folder")
    try:
        with quiet_loading():
            advice = f"get it again from {_FILE.origin} and set {_FILE.key} to its folder"
            model = load_whole(CLIPModel, source, part="PickScore", named=source, advice=advice)
    except LOAD_FAILURES as error:
        raise _FILE.misfit(source, error) from error
    return PickScoreScorer(model, device)
