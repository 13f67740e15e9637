"""What the shipped scorers must be able to tell apart: they pay the policy, so they must not be fooled cheaply."""

from __future__ import annotations

import random

import numpy as np
import torch

from addiffusion.embedded.contradictions import contradict
from addiffusion.embedded.corruptions import Corruption, corrupt
from addiffusion.embedded.data import SceneBatch
from addiffusion.embedded.pixels import to_network, to_pixels
from addiffusion.records import ScoreRequest
from addiffusion.scorers.suite import ScorerSuite
from addiffusion.seeds import generator


def early(scenes: SceneBatch, severity: float) -> np.ndarray:
    """The scenes as an unfinished generation would show them."""
    count = len(scenes.images)
    kinds = torch.full((count,), list(Corruption).index(Corruption.EARLY))
    stream = generator("tests", "early")
    return to_pixels(corrupt(to_network(scenes.images), torch.full((count,), severity), kinds, stream))


def values(suite: ScorerSuite, images: np.ndarray, prompts: tuple[str, ...]) -> np.ndarray:
    return suite.score(ScoreRequest(images=images, prompts=prompts)).values


def test_clip_finds_the_caption_among_fifty(suite: ScorerSuite, scenes: SceneBatch) -> None:
    images = suite.score(ScoreRequest(images=scenes.images, prompts=scenes.captions)).clip_embedding
    texts = suite.embed_text(scenes.captions)
    hits = [(images[at : at + 50] @ texts[at : at + 50].T).argmax(axis=1) == np.arange(50) for at in (0, 50)]
    recall = float(np.mean(hits))
    assert recall >= 0.6, f"R@1 of 50 is {recall:.2f}"


def test_clip_and_preference_prefer_the_true_caption(suite: ScorerSuite, scenes: SceneBatch) -> None:
    rng = random.Random(7)
    false = tuple(contradict(caption, rng) for caption in scenes.captions)
    ahead = values(suite, scenes.images, scenes.captions) > values(suite, scenes.images, false)
    assert ahead[:, 0].mean() >= 0.75, f"CLIP prefers the true caption in {ahead[:, 0].mean():.2f}"
    assert ahead[:, 2].mean() >= 0.75, f"the preference model prefers the true caption in {ahead[:, 2].mean():.2f}"


def test_every_score_falls_with_severity(suite: ScorerSuite, scenes: SceneBatch) -> None:
    levels = [values(suite, early(scenes, severity), scenes.captions) for severity in (0.0, 0.3, 0.6, 1.0)]
    for column, name in enumerate(("clip", "aesthetic", "image_reward")):
        means = [float(level[:, column].mean()) for level in levels]
        assert means == sorted(means, reverse=True), f"{name} by severity: {means}"


def test_preference_prefers_the_clean_image(suite: ScorerSuite, scenes: SceneBatch) -> None:
    clean = values(suite, scenes.images, scenes.captions)[:, 2]
    ahead = clean > values(suite, early(scenes, 0.5), scenes.captions)[:, 2]
    assert ahead.mean() >= 0.9, f"clean wins in {ahead.mean():.2f}"


def test_dino_similarity_falls_with_severity(suite: ScorerSuite, scenes: SceneBatch) -> None:
    clean = suite.score(ScoreRequest(images=scenes.images, prompts=scenes.captions)).dino_embedding
    cosines = []
    for severity in (0.15, 0.4, 0.8):
        request = ScoreRequest(images=early(scenes, severity), prompts=scenes.captions)
        cosines.append(float((suite.score(request).dino_embedding * clean).sum(axis=1).mean()))
    assert cosines == sorted(cosines, reverse=True), f"DINO cosine by severity: {cosines}"
