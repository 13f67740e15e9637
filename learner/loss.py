"""The PPO loss (arXiv:1707.06347) as one pure function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """One minibatch of ``n`` decisions."""

    logits: Float[Tensor, "n action"]
    """Under the weights being trained."""
    values: Float[Tensor, " n"]
    """Under the weights being trained."""
    actions: Int[Tensor, " n"]
    log_prob: Float[Tensor, " n"]
    """Of the actions, under the weights that took them."""
    advantages: Float[Tensor, " n"]
    """Standardised over the whole batch."""
    value_targets: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]
    """Of each decision in every mean; 1 on average over the whole batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoLoss:
    """Scalars; only ``total`` is differentiated."""

    total: Float[Tensor, ""]
    policy: Float[Tensor, ""]
    value: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    approx_kl: Float[Tensor, ""]
    """Estimator k3 of KL(old || new): mean of (ratio - 1) - log ratio; never negative."""
    clip_frac: Float[Tensor, ""]
    """Fraction of decisions whose ratio left the clip range."""


def ppo_loss(inputs: LossInputs, *, clip: float, value_coeff: float, entropy_coeff: float) -> PpoLoss:
    """Clipped surrogate, unclipped squared value error and entropy bonus: arXiv:1707.06347 Eq. 7 and 9.

    Args:
        inputs: one minibatch.
        clip: greatest distance of a ratio from 1 that still earns.
        value_coeff: weight of the value error.
        entropy_coeff: weight of the entropy bonus.
    """
    log_probs = torch.log_softmax(inputs.logits, dim=-1)
    log_ratio = log_probs.gather(-1, inputs.actions[:, None].long()).squeeze(-1) - inputs.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    policy = -(inputs.weights * torch.minimum(ratio * inputs.advantages, clipped * inputs.advantages)).mean()
    value = (inputs.weights * (inputs.values - inputs.value_targets).square()).mean()
    entropy = -(inputs.weights * (log_probs.exp() * log_probs).sum(dim=-1)).mean()
    return PpoLoss(
        total=policy + value_coeff * value - entropy_coeff * entropy,
        policy=policy,
        value=value,
        entropy=entropy,
        approx_kl=((ratio - 1) - log_ratio).mean(),
        clip_frac=((ratio - 1).abs() > clip).float().mean(),
    )


def explained_variance(value_targets: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> float:
    """1 - Var[target - value] / Var[target]; 0 where the targets do not vary."""
    variance = value_targets.var(unbiased=False)
    if variance < 1e-12:
        return 0.0
    return float(1 - (value_targets - values).var(unbiased=False) / variance)
