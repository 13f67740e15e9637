"""How sure the held-out comparison is, and whether the policy spends more where more is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.ranks import rank_correlation
from addiffusion.records import METRIC_NAMES, SCORE_NAMES
from evaluation.comparison.holdout import ArmResult, Holdout
from evaluation.significance.intervals import MINIMUM_COUNT
from evaluation.significance.paired import Comparison, compare_if_enough

_SHOWN = (("scene", "scene_soft"), ("CLIP", "clip"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What stands behind the held-out table."""

    baseline: str
    """Title of the arm the policy is compared with: the full run."""
    differences: tuple[Comparison | None, ...]
    """Policy minus full run by scene and CLIP; None where fewer than MINIMUM_COUNT prompts have both scores."""
    nfe_by_tier: dict[int, float]
    """Mean NFE of the policy per tier."""
    nfe_tier_spearman: float
    """Rank correlation of NFE with tier, image by image; NaN with one tier only, or one NFE only."""

    def line(self) -> str:
        """One line for under the table."""
        differences = [
            f"{title} {_difference(comparison)}"
            for (title, _), comparison in zip(_SHOWN, self.differences, strict=True)
        ]
        spent = " / ".join(f"{nfe:.1f}" for nfe in self.nfe_by_tier.values())
        rho = "-" if math.isnan(self.nfe_tier_spearman) else f"{self.nfe_tier_spearman:+.2f}"
        tiers = "/".join(str(tier) for tier in self.nfe_by_tier)
        return (
            f"policy minus {self.baseline}, 95 % intervals: {', '.join(differences)}; "
            f"NFE of tier {tiers}: {spent} (Spearman {rho})"
        )

    def as_json(self) -> dict[str, Any]:
        """Keys of `result.json`; null where there is no number."""
        rho = self.nfe_tier_spearman
        return {
            f"{title.lower()}_difference": None if comparison is None else comparison.as_json()
            for (title, _), comparison in zip(_SHOWN, self.differences, strict=True)
        } | {"nfe_tier_spearman": None if math.isnan(rho) else rho}


def evidence(holdout: Holdout) -> Evidence:
    """Compare policy and full run pair by pair; images that only one of them finished are left out."""
    policy, full = holdout.policy, holdout.full
    return Evidence(
        baseline=full.arm.title,
        differences=tuple(_compare(policy, full, name) for _, name in _SHOWN),
        nfe_by_tier={tier: policy.of_tier(tier).mean_nfe() for tier in policy.tiers()},
        nfe_tier_spearman=_tier_correlation(policy),
    )


def _compare(policy: ArmResult, full: ArmResult, metric: str) -> Comparison | None:
    """Pair by ticket: arms share their tickets' ids, and each may have lost other images."""
    ours, theirs = _scores(policy, metric), _scores(full, metric)
    shared = sorted(ours.keys() & theirs.keys())
    mine, other = (np.array([scores[ticket] for ticket in shared]) for scores in (ours, theirs))
    return compare_if_enough(mine, other, name=f"{policy.arm.title} - {full.arm.title}", metric=metric)


def _scores(result: ArmResult, metric: str) -> dict[int, float]:
    """Final score of each image by ticket."""
    values: NDArray[np.floating]
    if metric in METRIC_NAMES:
        values = result.scene[:, METRIC_NAMES.index(metric)]
    else:
        values = np.array([episode.scores[-1, SCORE_NAMES.index(metric)] for episode in result.episodes])
    return {episode.ticket.ticket_id: float(value) for episode, value in zip(result.episodes, values, strict=True)}


def _tier_correlation(result: ArmResult) -> float:
    """Rank correlation; tier 0 says nothing about difficulty and is left out."""
    rows = [(episode.nfe, episode.ticket.prompt.tier) for episode in result.episodes if episode.ticket.prompt.tier > 0]
    spent, tiers = zip(*rows, strict=True) if rows else ((), ())
    return rank_correlation(spent, tiers)


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return f"- (fewer than {MINIMUM_COUNT} pairs)"
    return comparison.brief()
