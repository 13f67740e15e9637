"""What the images of a contestant are judged by: every score anew, what their episodes were paid by, or a bank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addiffusion.bank.archive import Bank
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Episode, ScoreRequest
from addiffusion.scorers.base import Scoring
from evaluation.comparison.categories import category_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedScores:
    """Scores by name, and embeddings where they were asked for, of a returned image; NaN where there is no score."""

    scores: Mapping[str, float]
    clip_embedding: tuple[float, ...] = ()
    dino_embedding: tuple[float, ...] = ()


Judge = Callable[[Sequence[Episode]], list[NamedScores]]
"""Scores of the returned images of n episodes, in their order."""


def every_score(scoring: Scoring, *, scenes: bool) -> Judge:
    """All that the scorers know, and both embeddings.

    Args:
        scoring: the scorers.
        scenes: whether prompts are captions of the embedded world, which can be checked by category.
    """
    names = tuple(name for name in scoring.names if scenes or name not in METRIC_NAMES)

    def judge(episodes: Sequence[Episode]) -> list[NamedScores]:
        if not episodes:
            return []
        reply = scoring.score(_request(episodes, names))
        return [
            NamedScores(
                scores=dict(zip(reply.names, map(float, reply.values[row]), strict=True))
                | (category_scores(episode.image, episode.ticket.prompt.text) if scenes else {}),
                clip_embedding=tuple(map(float, reply.clip_embedding[row])),
                dino_embedding=tuple(map(float, reply.dino_embedding[row])),
            )
            for row, episode in enumerate(episodes)
        ]

    return judge


def paid_scores(scoring: Scoring) -> Judge:
    """Reward and final scores as the episodes have them; scene scores are judged now, where the scorers know scenes."""

    def judge(episodes: Sequence[Episode]) -> list[NamedScores]:
        known = bool(episodes) and set(METRIC_NAMES) <= set(scoring.names)
        blank = np.full((len(episodes), len(METRIC_NAMES)), np.nan, np.float32)
        scenes = scoring.score(_request(episodes, METRIC_NAMES, embeddings=())).values if known else blank
        return [_paid(episode, scene) for episode, scene in zip(episodes, scenes, strict=True)]

    return judge


def bank_scores(bank: Bank) -> Judge:
    """Reward and final scores of replayed episodes; scene scores are the bank's, where it has them."""

    def scene(episode: Episode) -> NDArray[np.float32]:
        one = bank.find(episode.ticket.prompt.text, episode.ticket.seed)
        if one is None or not bank.plan.metrics:
            return np.full(len(METRIC_NAMES), np.nan, np.float32)
        return one.end_metrics[one.end_at(len(episode.actions) - 1)]

    return lambda episodes: [_paid(episode, scene(episode)) for episode in episodes]


def _paid(episode: Episode, scene: NDArray[np.float32]) -> NamedScores:
    columns = zip((*SCORE_NAMES, *METRIC_NAMES), (*episode.scores[-1], *scene), strict=True)
    return NamedScores(
        scores={"reward": float(episode.rewards.sum()), **{name: float(value) for name, value in columns}}
    )


def _request(episodes: Sequence[Episode], names: tuple[str, ...], **options: tuple[str, ...]) -> ScoreRequest:
    return ScoreRequest(
        images=np.stack([episode.image for episode in episodes]),
        prompts=tuple(episode.ticket.prompt.text for episode in episodes),
        names=names,
        **options,
    )
