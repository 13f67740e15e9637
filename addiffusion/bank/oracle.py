"""Exact stopping on a trajectory whose ends are all known. Pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from addiffusion.bank.trajectory import Trajectory
from addiffusion.config import RewardSection
from addiffusion.errors import ConfigError
from addiffusion.reward import compute_terms

_ROUNDING = 1e-6
"""float32 holds about seven digits."""


def reward_of_ends(trajectory: Trajectory, section: RewardSection, *, c_nfe: float) -> NDArray[np.float64]:
    """(s,) sum of the rewards of the whole episode, were it stopped at each end.

    Args:
        trajectory: with scores wherever the reward asks for them.
        section: how episodes are paid.
        c_nfe: price of one NFE.

    Raises:
        ScorerError: a score with a weight is not a number.
    """
    returns = [_episode_reward(trajectory, end, section, c_nfe) for end in range(len(trajectory.end_rows))]
    return np.array(returns, np.float64)


def nfe_spent(trajectory: Trajectory, end: int) -> NDArray[np.int64]:
    """(d',) passes that follow each decision up to the next, or up to the image of ``end``."""
    decided = trajectory.nfe[: trajectory.end_rows[end] + 1]
    return np.diff(np.append(decided, trajectory.end_nfe[end]))


def oracle_end(utility: NDArray[np.float64]) -> int:
    """The best end by ``utility`` (s,), the earliest of equals. Hindsight: no policy can do better on average.

    Raises:
        ConfigError: a utility is not a number (a metric that does not understand the prompt).
    """
    if not np.isfinite(utility).all():
        raise ConfigError("The ends of a trajectory have no number to be compared by: choose another score.")
    return int(utility.argmax())


def fixed_end(trajectory: Trajectory, *, nfe: float) -> int:
    """The end whose NFE is nearest to a fixed budget, the cheaper of equals."""
    return int(np.abs(trajectory.end_nfe - nfe).argmin())


def gain_share(reward: float, origin: float, best: float) -> float | None:
    """Share of the gain from ``origin`` to ``best`` that ``reward`` has; None where there is no gain to share.

    Gains within float32 rounding are none: rewards are sums of float32 terms of the order of 1.
    """
    rounding = _ROUNDING * max(1.0, abs(origin), abs(best))
    return (reward - origin) / (best - origin) if best - origin > rounding else None


def _episode_reward(trajectory: Trajectory, end: int, section: RewardSection, c_nfe: float) -> float:
    spent = nfe_spent(trajectory, end)
    seen = len(spent)
    terms = compute_terms(
        section,
        scores=np.concatenate([trajectory.scores[:seen], trajectory.end_scores[end : end + 1]]),
        dino=np.concatenate([trajectory.dino[:seen], trajectory.end_dino[end : end + 1]]),
        cost_spent=spent.astype(np.float64) * trajectory.cost_per_nfe,
        refined=np.zeros(seen, np.bool_),
        c_nfe=c_nfe,
        reference=trajectory.reference if section.preset == "paired" else None,
    )
    return float(terms.astype(np.float64).sum())
