"""One iteration of training, for serial and distributed runs alike, and its statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from addiffusion.actions import ACTION_NAMES, Action
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode, Ticket
from addiffusion.rollouts import Rollouts
from learner.batch import Batch
from learner.state import Learner
from learner.tickets import TicketLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationReport:
    """Episodes, metrics and times of one iteration."""

    iteration: int
    episodes: tuple[Episode, ...]
    """What was trained on, in the order of ticket ids."""
    rollout: Mapping[str, float]
    """``episode_statistics``."""
    update: Mapping[str, float]
    """``PolicyLearner.update``."""
    stage_s: Mapping[str, float]
    """Seconds per rollout stage, summed over workers."""
    collect_s: float
    """Wall clock of the rollouts."""
    update_s: float
    """Wall clock of the update and the hand-over of the new weights."""
    broadcast_s: float
    """The part of it that is the hand-over."""
    reissued_count: int
    """Tickets of this iteration that had to be handed out again."""
    facts: Mapping[str, float]
    """``Batch.facts`` and ``audit``."""


def run_iteration(
    iteration: int, *, collect: Callable[[int], Batch], ledger: TicketLedger, rollouts: Rollouts, learner: Learner
) -> IterationReport:
    """Collect the iteration's tickets, train on them once, and give the workers the new weights.

    Args:
        iteration: the next one of ``ledger``.
        collect: rolls the tickets of an iteration out.
        ledger: closed for the iteration afterwards.
        rollouts: gets the new weights.
        learner: is trained.

    Raises:
        RolloutError: tickets could not be finished.
        StaleWeightsError: an episode was rolled out with weights that the collection does not allow.
        UpdateError: the update is not finite.
    """
    started = time.perf_counter()
    batch = collect(iteration)
    collected = time.perf_counter()
    update = learner.update(batch.episodes, iteration=iteration)
    ledger.close(iteration)
    updated = time.perf_counter()
    rollouts.set_weights(learner.weights(), iteration + 1)
    return IterationReport(
        iteration=iteration,
        episodes=batch.episodes,
        rollout=episode_statistics(batch.episodes),
        update=update,
        stage_s=batch.stage_s,
        collect_s=collected - started,
        update_s=time.perf_counter() - collected,
        broadcast_s=time.perf_counter() - updated,
        reissued_count=batch.reissued_count,
        facts={**batch.facts, **audit(ledger.tickets(iteration), batch.episodes, update)},
    )


def audit(issued: Sequence[Ticket], episodes: Sequence[Episode], update: Mapping[str, float]) -> dict[str, float]:
    """Tickets issued against episodes trained on: names ``episodes_dropped`` and ``audit_length_gap``.

    The gap is the mean number of decisions that the learner found in its batch, over that of the episodes of the issued
    tickets, minus 1. Anything but 0 in either is a defect: somebody lost, doubled or favoured episodes on the way.
    """
    lengths = {episode.ticket.ticket_id: len(episode.actions) for episode in episodes}
    finished = [lengths[ticket.ticket_id] for ticket in issued if ticket.ticket_id in lengths]
    return {
        "episodes_dropped": float(len(issued) - len(finished)),
        "audit_length_gap": update["decisions_trained"] / sum(finished) - 1 if finished else float("nan"),
    }


def episode_statistics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Means over ``episodes`` of return, reward terms, final scores, NFE and decisions, and the action mix.

    Names: ``return``, ``term_<name>``, ``score_<name>``, ``nfe``, ``network_evals``, ``cost``, ``decisions``,
    ``<action>_frac`` (of all decisions, for actions that the policy has a logit for), ``only_continue_frac`` (of all
    episodes: nothing but continue), ``stop_at_once_frac`` (of all episodes: stop at the first decision).
    """
    terms = np.stack([episode.terms.sum(axis=0) for episode in episodes])
    scores = np.stack([episode.scores[-1] for episode in episodes])
    names = ACTION_NAMES[: episodes[0].logits.shape[1]]
    actions = np.bincount(np.concatenate([episode.actions for episode in episodes]), minlength=len(names))
    return {
        "return": float(terms.sum(axis=1).mean()),
        **{f"term_{name}": float(value) for name, value in zip(TERM_NAMES, terms.mean(axis=0), strict=True)},
        **{f"score_{name}": float(value) for name, value in zip(SCORE_NAMES, scores.mean(axis=0), strict=True)},
        "nfe": float(np.mean([episode.nfe for episode in episodes])),
        "network_evals": float(np.mean([episode.network_evals for episode in episodes])),
        "cost": float(np.mean([episode.cost for episode in episodes])),
        "decisions": float(np.mean([len(episode.actions) for episode in episodes])),
        **{f"{name}_frac": float(n / actions.sum()) for name, n in zip(names, actions, strict=True)},
        "only_continue_frac": float(np.mean([(e.actions == Action.CONTINUE).all() for e in episodes])),
        "stop_at_once_frac": float(np.mean([e.actions[0] == Action.STOP for e in episodes])),
    }
