"""Reward hacking: the scores that pay rise, one that no reward sees falls."""

from __future__ import annotations

from addiffusion.config import RewardSection
from evaluation.comparison.summary import ComparisonResult
from evaluation.significance.paired import Comparison

_PAYING = ("clip", "aesthetic", "image_reward")
_UNSEEN = ("scene_soft", "hps", "pickscore")
"""Scores that no reward has: the exact one of the embedded world, those of the held-out scorers (`scorers.metrics`)."""


def reward_hacking(result: ComparisonResult, reward: RewardSection) -> str | None:
    """Why the policy counts as gaming its reward, in one sentence; None where it does not, or nobody can tell.

    Against the full run, whole 95 % intervals: a score with a weight lies above 0, one that no reward sees below.
    """
    paying = [name for name in _PAYING if getattr(reward.weights, name) > 0]
    risen = [one for one in _found(result, paying) if one.interval.low > 0]
    fallen = [one for one in _found(result, _UNSEEN) if one.interval.high < 0]
    if not (risen and fallen):
        return None
    gains, losses = (", ".join(f"{one.metric} {one.brief()}" for one in some) for some in (risen, fallen))
    return (
        f"the policy may be gaming its reward: over the full run's, what pays rises ({gains}) and what no reward sees "
        f"falls ({losses})"
    )


def _found(result: ComparisonResult, names: list[str] | tuple[str, ...]) -> list[Comparison]:
    return [one for name in names if (one := result.against("full", name)) is not None]
