"""Optimal stopping on a trajectory bank: values of every stop/continue policy, by dynamic programming. Pure functions.

Shapes: ``n`` trajectories, ``d`` decisions. A decision to stop at i earns ``quality[i]`` and costs ``passes[i]`` more
passes; to continue costs one pass and leads to decision i + 1. At the last decision the path ends either way, for
nothing. What was spent before a decision is in no value. ``c_nfe`` (n,) is the price that each trajectory's phi shows;
what a pass costs, c below, is ``Paths.cost``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from addiffusion.bank.oracle import reward_of_ends
from addiffusion.bank.trajectory import Trajectory
from addiffusion.config import RewardSection
from addiffusion.errors import ConfigError
from addiffusion.reward import pays_for_passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Trajectories as tensors."""

    phi: Float[Tensor, "n d p"]
    quality: Float[Tensor, "n d"]
    """What the image returned by a stop there earns, price aside."""
    passes: Float[Tensor, "n d"]
    """Passes that a stop there still takes."""
    tiers: Int[Tensor, " n"]
    pays_for_passes: bool = True
    """See ``addiffusion.reward.pays_for_passes``."""

    def __len__(self) -> int:
        return len(self.phi)

    def rows(self, which: Int[Tensor, " m"]) -> Paths:
        """Some of the trajectories, by index."""
        return replace(
            self, phi=self.phi[which], quality=self.quality[which], passes=self.passes[which], tiers=self.tiers[which]
        )

    def cost(self, c_nfe: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What one pass costs each trajectory."""
        return c_nfe if self.pays_for_passes else torch.zeros_like(c_nfe)

    def nfe(self, stops: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Passes after the first decision, of paths that stop at these decisions."""
        return stops + self.passes.gather(1, stops[:, None]).squeeze(1)


def stack(trajectories: Sequence[Trajectory], section: RewardSection) -> Paths:
    """Trajectories of one bank. Where stop was not tried, quality lies on the line between its neighbours.

    Raises:
        ConfigError: the reward pays for the way and not only for the returned image.
        ScorerError: a score with a weight is not a number.
    """
    if (section.preset, section.credit) != ("paired", "final"):
        raise ConfigError(
            f"Stopping on a bank needs a reward of the returned image alone, but reward.preset={section.preset} with "
            f"reward.credit={section.credit} pays on the way: set reward.preset=paired and reward.credit=final."
        )
    quality, passes = [], []
    for one in trajectories:
        rows = np.arange(len(one.steps))
        quality.append(np.interp(rows, one.end_rows, reward_of_ends(one, section, c_nfe=0.0)))
        # A finish takes the same passes everywhere but where fewer steps are left.
        passes.append(np.minimum(one.end_nfe[0] - one.nfe[0], rows[-1] - rows))
    return Paths(
        phi=torch.from_numpy(np.stack([one.phi for one in trajectories])),
        quality=torch.from_numpy(np.stack(quality)).float(),
        passes=torch.from_numpy(np.stack(passes)).float(),
        tiers=torch.tensor([one.prompt.tier for one in trajectories]),
        pays_for_passes=pays_for_passes(section),
    )


def policy_values(stop_prob: Float[Tensor, "n d"], paths: Paths, c_nfe: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Expected reward to go of a policy that stops with these probabilities: exact, nothing is sampled.

    V_i = p_i (quality_i - c passes_i) + (1 - p_i) (V_{i+1} - c).
    """
    stop, cost = _stop_now(paths, c_nfe), paths.cost(c_nfe)
    value = paths.quality[:, -1]
    values = [value]
    for i in reversed(range(stop.shape[1] - 1)):
        value = torch.lerp(value - cost, stop[:, i], stop_prob[:, i])
        values.append(value)
    return torch.stack(values[::-1], dim=1)


def stop_advantages(values: Float[Tensor, "n d"], paths: Paths, c_nfe: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Gain of a stop at once over going on under a policy of these values; 0 at the last decision."""
    advantages = torch.zeros_like(values)
    advantages[:, :-1] = _stop_now(paths, c_nfe)[:, :-1] - (values[:, 1:] - paths.cost(c_nfe)[:, None])
    return advantages


def oracle_values(paths: Paths, c_nfe: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Reward to go of an oracle, which knows what follows: V_i = max(quality_i - c passes_i, V_{i+1} - c)."""
    stop, cost = _stop_now(paths, c_nfe), paths.cost(c_nfe)
    value = paths.quality[:, -1]
    values = [value]
    for i in reversed(range(stop.shape[1] - 1)):
        value = torch.maximum(stop[:, i], value - cost)
        values.append(value)
    return torch.stack(values[::-1], dim=1)


def returns_of(paths: Paths, stops: Int[Tensor, " n"], c_nfe: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Reward of the paths that stop at these decisions, from the first decision on."""
    return paths.quality.gather(1, stops[:, None]).squeeze(1) - paths.cost(c_nfe) * paths.nfe(stops)


def best_fixed_stop(paths: Paths, c_nfe: Float[Tensor, " n"]) -> int:
    """The one decision that would be best for all to stop at."""
    n, d = paths.quality.shape
    totals = [returns_of(paths, torch.full((n,), row), c_nfe).mean() for row in range(d)]
    return int(torch.stack(totals).argmax())


def _stop_now(paths: Paths, c_nfe: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
    return paths.quality - paths.cost(c_nfe)[:, None] * paths.passes
