"""What the shipped scorers must be able to tell apart: they pay the policy, so they must not be fooled cheaply."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from addiffusion.config import ScorersSection
from addiffusion.embedded.world.contradictions import contradict
from addiffusion.embedded.world.corruptions import Corruption, corrupt
from addiffusion.embedded.world.data import SceneBatch
from addiffusion.embedded.world.pixels import to_network, to_pixels
from addiffusion.records import SCORE_NAMES, ScoreReply, ScoreRequest
from addiffusion.scorers.families import load_suite
from addiffusion.scorers.suite import ScorerSuite
from addiffusion.seeds import generator


@pytest.fixture(scope="module")
def wide() -> ScorerSuite:
    """In larger batches: faster for a hundred images."""
    return load_suite(ScorersSection(device="cpu", batch_images=25))


@pytest.fixture(scope="module")
def clean(wide: ScorerSuite, scenes: SceneBatch) -> ScoreReply:
    """Scores of the renders themselves."""
    return scored(wide, scenes.images, scenes.captions)


def early(scenes: SceneBatch, severity: float) -> np.ndarray:
    """The scenes as an unfinished generation would show them."""
    count = len(scenes.images)
    kinds = torch.full((count,), list(Corruption).index(Corruption.EARLY))
    stream = generator("tests", "early")
    return to_pixels(corrupt(to_network(scenes.images), torch.full((count,), severity), kinds, stream))


def scored(suite: ScorerSuite, images: np.ndarray, prompts: tuple[str, ...]) -> ScoreReply:
    return suite.score(ScoreRequest(images=images, prompts=prompts))


def test_clip_finds_the_caption_among_fifty(wide: ScorerSuite, scenes: SceneBatch, clean: ScoreReply) -> None:
    images, texts = clean.clip_embedding, wide.embed_text(scenes.captions)
    hits = [(images[at : at + 50] @ texts[at : at + 50].T).argmax(axis=1) == np.arange(50) for at in (0, 50)]
    recall = float(np.mean(hits))
    assert recall >= 0.7, f"R@1 of 50 is {recall:.2f}"


def test_clip_and_preference_prefer_the_true_caption(wide: ScorerSuite, scenes: SceneBatch, clean: ScoreReply) -> None:
    rng = random.Random(7)
    false = tuple(contradict(caption, rng) for caption in scenes.captions)
    ahead = (clean.values > scored(wide, scenes.images, false).values).mean(axis=0)
    assert ahead[0] >= 0.75, f"CLIP prefers the true caption in {ahead[0]:.2f}"
    assert ahead[2] >= 0.65, f"the preference model prefers the true caption in {ahead[2]:.2f}"


def test_every_score_and_likeness_fall_with_severity(wide: ScorerSuite, scenes: SceneBatch, clean: ScoreReply) -> None:
    replies = [clean, *(scored(wide, early(scenes, severity), scenes.captions) for severity in (0.3, 0.6, 1.0))]
    for column, name in enumerate(SCORE_NAMES):
        means = [float(reply.values[:, column].mean()) for reply in replies]
        assert means == sorted(means, reverse=True), f"{name} by severity: {means}"
    likeness = [float((reply.dino_embedding * clean.dino_embedding).sum(axis=1).mean()) for reply in replies]
    assert likeness == sorted(likeness, reverse=True), f"DINO cosine by severity: {likeness}"


def test_preference_prefers_the_clean_image(wide: ScorerSuite, scenes: SceneBatch, clean: ScoreReply) -> None:
    ahead = clean.values[:, 2] > scored(wide, early(scenes, 0.5), scenes.captions).values[:, 2]
    assert ahead.mean() >= 0.9, f"clean wins in {ahead.mean():.2f}"
