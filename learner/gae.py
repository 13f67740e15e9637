"""Generalised advantage estimation (arXiv:1506.02438) over complete episodes. Pure functions on numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32

MIN_STD = 1e-4
"""Floor of the standard deviation, as in RLlib: equal advantages become zeros, not noise."""


def estimate_advantages(
    rewards: Float32[np.ndarray, " d"],
    values: Float32[np.ndarray, " d"],
    *,
    gamma_d: float,
    gae_lambda: float,
    ratios: Float32[np.ndarray, " d"] | None = None,
) -> Float32[np.ndarray, " d"]:
    """Advantages (d,) of one episode that ends after its last decision, so that nothing is bootstrapped.

    arXiv:1506.02438 Eq. 16: A_i = sum_l (gamma_d * gae_lambda)^l delta_{i+l}, with
    delta_i = r_i + gamma_d V_{i+1} - V_i and V = 0 after the end.

    Args:
        rewards: (d,) reward of each decision.
        values: (d,) value estimate at each decision.
        gamma_d: discount per decision.
        gae_lambda: 0 trusts the values, 1 the rewards.
        ratios: (d,) probability of each action under the policy to be improved over that under the one that took it;
            None: they are the same. Truncated at 1, they turn the sum into V-trace with both thresholds at 1 and
            lambda (arXiv:1802.01561 Eq. 1 and Remark 2): A_i = min(1, ratio_i) (delta_i + gamma_d gae_lambda A_{i+1}).
    """
    trust = np.ones(len(rewards)) if ratios is None else np.minimum(ratios, 1.0)
    next_values = np.append(values[1:], np.float32(0.0))
    deltas = rewards + gamma_d * next_values - values
    advantages = np.zeros(len(rewards), dtype=np.float64)
    running = 0.0
    for i in reversed(range(len(rewards))):
        running = float(trust[i]) * (float(deltas[i]) + gamma_d * gae_lambda * running)
        advantages[i] = running
    return advantages.astype(np.float32)


def standardise(advantages: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Zero mean and unit deviation over all decisions (n,) of a batch."""
    return (advantages - advantages.mean()) / max(MIN_STD, float(advantages.std()))


def decision_weights(lengths: Sequence[int], *, by: Literal["decision", "episode"]) -> Float32[np.ndarray, " n"]:
    """Weight (n,) of each decision in the loss, of mean 1.

    By decision, all weigh the same: the sum over an episode's decisions is what the policy gradient theorem asks for
    (arXiv:1506.02438 Eq. 1), and an episode counts by its length. By episode, an episode's decisions share one weight:
    short episodes are not drowned by long ones, at the price of a gradient that is no longer that of the mean reward.
    """
    counts = np.asarray(lengths)
    if by == "decision":
        return np.ones(counts.sum(), np.float32)
    return np.repeat(counts.mean() / counts, counts).astype(np.float32)
