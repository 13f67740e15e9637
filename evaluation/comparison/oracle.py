"""The best stop of every image with hindsight: what no agent can beat, and how much of that gain an agent has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from addiffusion.bank.oracle import gain_share
from addiffusion.config import RewardSection
from addiffusion.errors import ScorerError
from addiffusion.records import SCORE_NAMES, Reference
from addiffusion.reward import reward_of_image
from evaluation.comparison.contestants import Contestant
from evaluation.comparison.metric_table import Column, MetricTable

BY_REWARD = "reward"


def utility(table: MetricTable, full: MetricTable, reward: RewardSection) -> Column:
    """Reward of each image as the configuration pays it, relative to the full image; NaN where a score is missing.

    Raises:
        ContractError: the reward pays for more than the returned image (``pays_for_image``).
    """
    scores, dino = _final(table)
    full_scores, full_dino = _final(full)
    worth = np.full(len(scores), np.nan)
    for row in np.flatnonzero(table.drawn & full.drawn).tolist():
        try:
            worth[row] = reward_of_image(
                reward,
                scores=scores[row],
                dino=dino[row],
                nfe=int(table.nfe[row]),
                c_nfe=reward.c_nfe,
                reference=Reference(scores=full_scores[row], dino_embedding=full_dino[row]),
            )
        except ScorerError:  # a score that has a weight is missing
            continue
    return worth


def _final(table: MetricTable) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, k) scores and (n, f) DINO features of the returned images; NaN where there are none."""
    scores = np.stack([table.value(name) for name in SCORE_NAMES], axis=1).astype(np.float32)
    dino = table.dino if table.dino.shape[1] else np.full((len(scores), 1), np.nan)
    return scores, dino.astype(np.float32)


def oracle(stops: Sequence[MetricTable], by: str, *, full: MetricTable, reward: RewardSection) -> MetricTable:
    """Per image the stop with the highest score, and among equals the one with the fewest passes.

    Args:
        stops: the same images stopped at several steps, and never.
        by: a score name, or ``reward``.
        full: full-length images.
        reward: how ``reward`` is computed.
    """
    worth = np.stack([utility(one, full, reward) if by == BY_REWARD else one.value(by) for one in stops])
    nfe = np.stack([one.nfe for one in stops])
    # 1e-9 of a score per pass only breaks ties.
    ranked = np.where(np.isfinite(worth), worth - 1e-9 * np.nan_to_num(nfe), -np.inf)
    best = ranked.argmax(axis=0)
    rows = np.arange(len(best))

    def pick(name: str) -> Column:
        return np.stack([one.value(name) for one in stops])[best, rows]

    names = sorted(set().union(*(one.scores for one in stops)))
    contestant = Contestant(
        name=f"oracle-{by}",
        title=oracle_title(by),
        kind="oracle",
        sampler=full.contestant.sampler,
    )
    return replace(
        full,
        contestant=contestant,
        nfe=pick("nfe"),
        network_evals=pick("network_evals"),
        seconds=np.full(len(best), np.nan),  # hindsight takes no time that could be compared
        seconds_full_queue=np.full(len(best), np.nan),
        scores={name: pick(name) for name in names},
        dino=np.stack([one.dino for one in stops])[best, rows],
        clip=np.stack([one.clip for one in stops])[best, rows],
        errors=(),
    )


def oracle_title(by: str) -> str:
    """How an oracle is called."""
    return f"oracle stop by {by.replace('_', ' ')}"


def oracle_share(agent: MetricTable, best: MetricTable, *, full: MetricTable, reward: RewardSection) -> float | None:
    """Mean gain in reward over the full run, as a share of the oracle's; None where the oracle gains nothing.

    Args:
        agent: the policy's images.
        best: the oracle's, of the same cases.
        full: full-length images of the same cases.
        reward: how an image is paid.
    """
    ours, most, origin = (utility(one, full, reward) for one in (agent, best, full))
    known = np.isfinite(ours) & np.isfinite(most) & np.isfinite(origin)
    if not known.any():
        return None
    return gain_share(*(float(worth[known].mean()) for worth in (ours, origin, most)))
