"""Each full-size scorer is built with random weights and run once: `pytest -m slow tests/addiffusion/scorers`.

Needs 10 GB of memory and a minute on a CPU, but no downloads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import open_clip
import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from addiffusion.config.scorers import ClipSection, DinoSection, HpsSection
from addiffusion.scorers.aesthetic import AestheticScorer, LaionHead
from addiffusion.scorers.base import Scorer
from addiffusion.scorers.clip import ClipScorer, tower_of
from addiffusion.scorers.dino import DinoFeatures, build_dino_model, preprocessing_of
from addiffusion.scorers.hps import hps_of
from addiffusion.scorers.image_reward import ImageRewardModel, ImageRewardScorer, ImageRewardShape, bert_tokenizer
from addiffusion.scorers.pickscore import PickScoreScorer
from scripts.full_size.models import published_tensors
from tests.addiffusion.scorers.test_image_reward import write_vocabulary
from tests.addiffusion.scorers.tiny_scorers import CPU, batch_of, pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

IMAGES, PROMPTS = pictures(512, 512, 1), ("a red circle",)
H14: Final = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
H14_TEXT: Final = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def clip_and_aesthetic(folder: Path) -> list[Scorer]:
    tower = tower_of(ClipSection().model, open_clip.create_model(ClipSection().model), device=CPU)
    assert tower.width == 768
    return [ClipScorer(tower), AestheticScorer(tower, LaionHead().eval())]


def image_reward(folder: Path) -> list[Scorer]:
    model = ImageRewardModel(ImageRewardShape())
    assert len(published_tensors(model)) == 625, "the published checkpoint's keys"
    assert millions(model) == pytest.approx(446.2, abs=0.5), "446.7 million with the unused projections"
    return [ImageRewardScorer(model, bert_tokenizer(write_vocabulary(folder)), CPU)]


def hps(folder: Path) -> list[Scorer]:
    model = open_clip.create_model(HpsSection().model)
    assert millions(model) == pytest.approx(986.1, abs=0.2)
    return [hps_of(HpsSection().model, model, CPU)]


def pickscore(folder: Path) -> list[Scorer]:
    config = CLIPConfig(
        text_config=CLIPTextConfig(vocab_size=49408, hidden_act="gelu", **H14_TEXT).to_dict(),
        vision_config=CLIPVisionConfig(image_size=224, patch_size=14, hidden_act="gelu", **H14).to_dict(),
        projection_dim=1024,
    )
    return [PickScoreScorer(CLIPModel(config), CPU)]


@pytest.mark.parametrize("build", [clip_and_aesthetic, image_reward, hps, pickscore])
def test_one_forward_of_each_scorer(build: Callable[[Path], list[Scorer]], tmp_path: Path) -> None:
    images = batch_of(IMAGES)
    for scorer in build(tmp_path):
        score = scorer.score(images, PROMPTS)
        assert score.shape == (1,)
        assert bool(torch.isfinite(score).all())


@pytest.mark.parametrize(
    "section",
    [
        DinoSection(),
        DinoSection(model="vit_small_patch16_224.dino"),
        DinoSection(model="vit_small_patch14_dinov2.lvd142m", image_size=224),
    ],
)
def test_one_forward_of_each_dino(section: DinoSection) -> None:
    model = build_dino_model(section)
    features = DinoFeatures(model, prepare=preprocessing_of(model, section.image_size), device=CPU)
    assert features.embed_images(batch_of(IMAGES)).shape == (1, 384)
