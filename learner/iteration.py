"""One iteration of training: the same few lines, whoever rolls out and wherever the learner runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from addiffusion.errors import StaleWeightsError
from addiffusion.records import Episode
from addiffusion.rollouts import Rollouts
from learner.state import Learner
from learner.statistics import episode_statistics
from learner.tickets import TicketLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Exactly the episodes of one iteration's tickets."""

    episodes: tuple[Episode, ...]
    """In the order of their ticket ids."""
    stage_s: Mapping[str, float]
    """Seconds per rollout stage, summed over workers."""
    reissued_count: int
    """Tickets that had to be handed out again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationReport:
    """What happened in one iteration."""

    iteration: int
    episodes: tuple[Episode, ...]
    """What was trained on, in the order of ticket ids."""
    rollout: Mapping[str, float]
    """``learner.statistics.episode_statistics``."""
    update: Mapping[str, float]
    """``PolicyLearner.update``."""
    stage_s: Mapping[str, float]
    """Seconds per rollout stage, summed over workers."""
    collect_s: float
    """Wall clock of the rollouts."""
    update_s: float
    """Wall clock of the update and the hand-over of the new weights."""
    reissued_count: int
    """Tickets of this iteration that had to be handed out again."""


def run_iteration(iteration: int, *, ledger: TicketLedger, rollouts: Rollouts, learner: Learner) -> IterationReport:
    """Collect the iteration's tickets, train on them once, and give the workers the new weights.

    Raises:
        RolloutError: tickets could not be finished.
        StaleWeightsError: an episode was rolled out with other weights than the current ones.
        UpdateError: the update is not finite.
    """
    started = time.perf_counter()
    batch = collect_batch(iteration, ledger=ledger, rollouts=rollouts)
    collected = time.perf_counter()
    update = learner.update(batch.episodes, iteration=iteration)
    ledger.close(iteration)
    rollouts.set_weights(learner.weights(), iteration + 1)
    return IterationReport(
        iteration=iteration,
        episodes=batch.episodes,
        rollout=episode_statistics(batch.episodes),
        update=update,
        stage_s=batch.stage_s,
        collect_s=collected - started,
        update_s=time.perf_counter() - collected,
        reissued_count=batch.reissued_count,
    )


def collect_batch(iteration: int, *, ledger: TicketLedger, rollouts: Rollouts) -> Batch:
    """Roll the tickets of ``iteration`` out, handing failed ones out again until every one has its episode.

    Nothing is filtered and nothing is topped up with other tickets: short and failing episodes weigh as much as any.
    """
    episodes: list[Episode] = []
    stage_s: defaultdict[str, float] = defaultdict(float)
    reissued_before = ledger.state.reissued_count
    tickets = ledger.issue(iteration)
    while tickets:
        collected = rollouts.collect(tickets)
        ledger.check_in(collected.episodes)
        episodes += collected.episodes
        for stage, seconds in collected.stage_s.items():
            stage_s[stage] += seconds
        tickets = ledger.reissue(collected.failed)
    _require_version(episodes, iteration)
    return Batch(
        episodes=tuple(sorted(episodes, key=lambda episode: episode.ticket.ticket_id)),
        stage_s=dict(stage_s),
        reissued_count=ledger.state.reissued_count - reissued_before,
    )


def _require_version(episodes: list[Episode], version: int) -> None:
    versions = np.array([episode.weight_version for episode in episodes])
    if (versions != version).any():
        raise StaleWeightsError(
            f"Iteration {version} got episodes of weight versions {sorted(set(versions.tolist()))}, but synchronous "
            f"collection allows only version {version}.",
            expected=version,
        )
