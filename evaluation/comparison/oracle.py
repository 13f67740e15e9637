"""The best stop of every image with hindsight: what no agent can beat, and how much of that gain an agent has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from addiffusion.config import RewardSection
from addiffusion.records import SCORE_NAMES
from addiffusion.reward import potential
from evaluation.comparison.columns import Column, Columns
from evaluation.comparison.contestants import Contestant

BY_REWARD = "reward"


def utility(columns: Columns, full: Columns, reward: RewardSection) -> Column:
    """Reward of each image under ``paired``: quality and likeness relative to the full image, minus the price."""
    scores = np.stack([columns.value(name) for name in SCORE_NAMES], axis=1)
    origin = np.stack([full.value(name) for name in SCORE_NAMES], axis=1)
    known = columns.drawn & np.isfinite(scores).all(axis=1) & np.isfinite(origin).all(axis=1)
    worth = np.full(len(scores), np.nan)
    gap = (scores[known] - origin[known]).astype(np.float32)
    likeness = columns.value("dino_similarity")[known] - 1.0
    dino = reward.weights.dino / reward.scales.dino
    worth[known] = potential(reward, gap) - reward.c_nfe * columns.nfe[known]
    if dino > 0:
        worth[known] += dino * likeness
    return worth


def oracle(stops: Sequence[Columns], by: str, *, full: Columns, reward: RewardSection) -> Columns:
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

    names = set().union(*(one.scores for one in stops))
    contestant = Contestant(
        name=f"oracle-{by}",
        title=f"oracle stop by {by.replace('_', ' ')}",
        kind="oracle",
        sampler=full.contestant.sampler,
    )
    return replace(
        full,
        contestant=contestant,
        nfe=pick("nfe"),
        network_evals=pick("network_evals"),
        seconds=np.full(len(best), np.nan),  # hindsight takes no time that could be compared
        scores={name: pick(name) for name in names},
        dino=np.stack([one.dino for one in stops])[best, rows],
        clip=np.stack([one.clip for one in stops])[best, rows],
        errors=(),
    )


def oracle_share(agent: Columns, best: Columns, *, full: Columns, reward: RewardSection) -> float:
    """Mean gain in reward over the full run, as a share of the oracle's; NaN where the oracle gains nothing."""
    gains = [utility(one, full, reward) - utility(full, full, reward) for one in (agent, best)]
    both = np.isfinite(gains[0]) & np.isfinite(gains[1])
    if not both.any():
        return float("nan")
    ours, most = (float(gain[both].mean()) for gain in gains)
    return ours / most if most > 0 else float("nan")
