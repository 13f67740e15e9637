"""Generalised advantage estimation (arXiv:1506.02438) over complete episodes. Pure functions on numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_STD = 1e-4
"""Floor of the standard deviation, as in RLlib: equal advantages become zeros, not noise."""


def estimate_advantages(
    rewards: NDArray[np.float32], values: NDArray[np.float32], *, gamma_d: float, gae_lambda: float
) -> NDArray[np.float32]:
    """Advantages (d,) of one episode that ends after its last decision, so that nothing is bootstrapped.

    arXiv:1506.02438 Eq. 16: A_i = sum_l (gamma_d * gae_lambda)^l delta_{i+l}, with
    delta_i = r_i + gamma_d V_{i+1} - V_i and V = 0 after the end.

    Args:
        rewards: (d,) reward of each decision.
        values: (d,) value estimate at each decision.
        gamma_d: discount per decision.
        gae_lambda: 0 trusts the values, 1 the rewards.
    """
    next_values = np.append(values[1:], np.float32(0.0))
    deltas = rewards + gamma_d * next_values - values
    advantages = np.zeros(len(rewards), dtype=np.float64)
    running = 0.0
    for i in reversed(range(len(rewards))):
        running = float(deltas[i]) + gamma_d * gae_lambda * running
        advantages[i] = running
    return advantages.astype(np.float32)


def standardise(advantages: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zero mean and unit deviation over all decisions (n,) of a batch."""
    return (advantages - advantages.mean()) / max(MIN_STD, float(advantages.std()))
