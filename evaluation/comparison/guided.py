"""Pipelines that can't share the engine, as rollouts: image after image, with the same scores at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from addiffusion.actions import FIRST_ACTIONS
from addiffusion.backbones.guided import GuidedImage, GuidedPipeline
from addiffusion.config import SamplerSection
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode, FailedEpisode, ScoreRequest, Ticket
from addiffusion.rollouts import Collected
from addiffusion.scorers.base import Scoring


class GuidedRollouts:
    """Implements ``addiffusion.rollouts.Rollouts`` around one guided pipeline; no policy has a say."""

    def __init__(self, pipeline: GuidedPipeline, scoring: Scoring, sampler: SamplerSection) -> None:
        self._pipeline, self._scoring, self._sampler = pipeline, scoring, sampler

    def set_weights(self, weights: Any, version: int) -> None:
        """Nothing here decides."""

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Draw every ticket's prompt and seed; an image without a score is a failed ticket."""
        section = sampler or self._sampler
        outcomes = [self._episode(ticket, section) for ticket in sorted(tickets, key=lambda ticket: ticket.ticket_id)]
        return Collected(
            episodes=tuple(one for one in outcomes if isinstance(one, Episode)),
            failed=tuple(one for one in outcomes if isinstance(one, FailedEpisode)),
        )

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """``collect``: images are drawn one after the other, each to its end."""
        return self.collect(tickets)

    def _episode(self, ticket: Ticket, sampler: SamplerSection) -> Episode | FailedEpisode:
        start = time.perf_counter()
        drawn = self._pipeline.draw(ticket.prompt.text, seed=ticket.seed, sampler=sampler)
        reply = self._scoring.score(ScoreRequest(images=drawn.image[None], prompts=(ticket.prompt.text,)))
        if reply.errors[0] is not None:
            return FailedEpisode(ticket=ticket, reason=reply.errors[0])
        return _record(
            ticket, drawn, sampler.num_steps, reply.values, reply.dino_embedding[0], time.perf_counter() - start
        )


def _record(
    ticket: Ticket, drawn: GuidedImage, steps: int, scores: np.ndarray, dino: np.ndarray, seconds: float
) -> Episode:
    return Episode(
        ticket=ticket,
        phi=np.zeros((0, 0), np.float32),
        actions=np.zeros(0, np.int64),
        log_prob=np.zeros(0, np.float32),
        logits=np.zeros((0, len(FIRST_ACTIONS)), np.float32),
        steps=np.zeros(0, np.int64),
        nfe_spent=np.zeros(0, np.int64),
        scores=scores.reshape(1, len(SCORE_NAMES)),
        terms=np.zeros((0, len(TERM_NAMES)), np.float32),
        final_dino=dino,
        image=drawn.image,
        nfe=steps,
        network_evals=drawn.network_evals,
        weight_version=-1,
        seconds=seconds,
    )
