from __future__ import annotations

import math

import pytest
import torch

from learner.loss import LossInputs, explained_variance, ppo_loss


def make_inputs(count: int = 40, *, drift: float = 1.0) -> LossInputs:
    draws = torch.Generator().manual_seed(3)
    old = torch.randn(count, 3, generator=draws)
    actions = torch.randint(0, 3, (count,), generator=draws)
    return LossInputs(
        logits=(old + drift * torch.randn(count, 3, generator=draws)).requires_grad_(),
        values=torch.randn(count, generator=draws).requires_grad_(),
        actions=actions,
        log_prob=torch.log_softmax(old, -1)[torch.arange(count), actions],
        advantages=torch.randn(count, generator=draws),
        value_targets=torch.randn(count, generator=draws),
        weights=torch.ones(count),
    )


def test_equals_the_paper_row_by_row() -> None:
    inputs = make_inputs()
    loss = ppo_loss(inputs, clip=0.2, value_coeff=0.5, entropy_coeff=0.01)
    surrogate, error, entropy, clipped = 0.0, 0.0, 0.0, 0
    for i in range(40):
        distribution = torch.distributions.Categorical(logits=inputs.logits[i])
        ratio = math.exp(float((distribution.log_prob(inputs.actions[i]) - inputs.log_prob[i]).detach()))
        advantage = float(inputs.advantages[i])
        surrogate += min(ratio * advantage, max(0.8, min(1.2, ratio)) * advantage)
        error += float((inputs.values[i] - inputs.value_targets[i]).detach()) ** 2
        entropy += float(distribution.entropy().detach())
        clipped += not 0.8 <= ratio <= 1.2
    assert loss.policy.item() == pytest.approx(-surrogate / 40, rel=1e-5)
    assert loss.value.item() == pytest.approx(error / 40, rel=1e-5)
    assert loss.entropy.item() == pytest.approx(entropy / 40, rel=1e-5)
    assert loss.clip_frac.item() == pytest.approx(clipped / 40)
    assert loss.total.item() == pytest.approx((-surrogate + 0.5 * error - 0.01 * entropy) / 40, rel=1e-5)


def test_unchanged_policy_has_no_divergence_and_the_plain_policy_gradient() -> None:
    inputs = make_inputs(drift=0.0)
    loss = ppo_loss(inputs, clip=0.2, value_coeff=0.0, entropy_coeff=0.0)
    (gradient,) = torch.autograd.grad(loss.total, inputs.logits)
    log_probs = torch.log_softmax(inputs.logits, -1)[torch.arange(40), inputs.actions]
    (expected,) = torch.autograd.grad(-(log_probs * inputs.advantages).mean(), inputs.logits)
    assert float(loss.approx_kl.detach()) == pytest.approx(0, abs=1e-6)
    assert loss.clip_frac.item() == 0
    torch.testing.assert_close(gradient, expected)


def test_divergence_estimate_is_never_negative() -> None:
    assert float(ppo_loss(make_inputs(), clip=0.2, value_coeff=0.5, entropy_coeff=0.0).approx_kl.detach()) > 0


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (5.0, 1.0)])
def test_explained_variance_of_values_right_up_to_a_constant(shift: float, expected: float) -> None:
    targets = torch.arange(6.0)
    assert explained_variance(targets, targets + shift) == pytest.approx(expected)


def test_explained_variance_of_constant_values_and_constant_targets_is_zero() -> None:
    assert explained_variance(torch.arange(6.0), torch.zeros(6)) == pytest.approx(0)
    assert explained_variance(torch.ones(6), torch.arange(6.0)) == 0
