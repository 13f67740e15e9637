"""Scorers and the policy on a device that exists only in name: nothing mixes devices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch import nn

from addiffusion.config import ScorersSection
from addiffusion.policy import PolicyNetwork
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, ScoreRequest
from addiffusion.scorers import embedded
from addiffusion.scorers.aesthetic import AestheticScorer, linear_stack
from addiffusion.scorers.clip import ClipScorer, tower_of
from addiffusion.scorers.dino import DinoFeatures, preprocessing_of
from addiffusion.scorers.embedded import embedded_suite
from addiffusion.scorers.hps import hps_of
from addiffusion.scorers.image_reward import ImageRewardModel, ImageRewardScorer, bert_tokenizer
from addiffusion.scorers.pickscore import PickScoreScorer
from addiffusion.scorers.suite import ScorerSuite
from tests.addiffusion.scorers.test_image_reward import TINY, WORDS
from tests.addiffusion.scorers.tiny_scorers import PROMPTS, make_pickscore, pictures, register_tiny_clip
from tests.fake_cuda import CUDA, fake_cuda

LOADERS = ("load_clip", "load_dino", "load_aesthetic", "load_preference")


def test_the_full_size_scorers_shapes(tmp_path: Path) -> None:
    name = register_tiny_clip(tmp_path)
    clip, hps = open_clip.create_model(name), open_clip.create_model(name)
    dino, image_reward = timm.create_model("test_vit", num_classes=0), ImageRewardModel(TINY)
    pickscore = make_pickscore()
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    with fake_cuda():
        tower = tower_of(name, clip, device=CUDA)
        head = nn.Sequential(linear_stack(tower.width), nn.Flatten(0)).to(CUDA)
        suite = ScorerSuite(
            clip=tower,
            dino=DinoFeatures(dino, prepare=preprocessing_of(dino, None), device=CUDA),
            scorers=(
                ClipScorer(tower),
                AestheticScorer(tower, head),
                ImageRewardScorer(image_reward, bert_tokenizer(vocabulary), CUDA),
                hps_of(name, hps, CUDA),
                PickScoreScorer(pickscore, CUDA),
            ),
            device=CUDA,
            batch_images=4,
            image_size=None,
        )
        _all_scored(suite, (*SCORE_NAMES, "hps", "pickscore"), PROMPTS)


def test_the_embedded_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    for loader in LOADERS:
        monkeypatch.setattr(embedded, loader, cache(getattr(embedded, loader)))
    section = ScorersSection(device="cpu", batch_images=4)
    embedded_suite(section)  # so that the files are read before nothing can be
    with fake_cuda():
        suite = embedded_suite(section.model_copy(update={"device": "cuda"}))
        _all_scored(suite, (*SCORE_NAMES, *METRIC_NAMES), ["a red circle", "a large blue square", "a green star"])


def _all_scored(suite: ScorerSuite, names: tuple[str, ...], prompts: Sequence[str]) -> None:
    reply = suite.score(
        ScoreRequest(images=pictures(64, 64), prompts=tuple(prompts), names=names, embeddings=("clip", "dino"))
    )
    assert reply.errors == (None,) * 3
    assert reply.values.shape == (3, len(names))
    assert reply.clip_embedding.shape == (3, suite.clip_width)
    assert suite.embed_text(prompts).shape == (3, suite.clip_width)


def test_the_policy() -> None:
    policy = PolicyNetwork(12, (8,))
    with fake_cuda():
        logits = policy.to(CUDA)(torch.zeros(5, 12, device=CUDA))
        assert (logits.device, tuple(logits.shape)) == (CUDA, (5, 3))
        assert logits.cpu().detach().numpy().dtype == np.float32
