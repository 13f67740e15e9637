from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from ray.rllib.algorithms.impala.torch.vtrace_torch_v2 import vtrace_torch
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

from learner.gae import decision_weights, estimate_advantages, standardise

FLOATS = st.floats(-10, 10, width=32)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    length = draw(st.integers(1, 20))
    row = arrays(np.float32, length, elements=FLOATS)
    return draw(row), draw(row)


@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_equals_the_definition_as_a_double_sum(
    episode: tuple[NDArray[np.float32], NDArray[np.float32]], gamma_d: float, gae_lambda: float
) -> None:
    rewards, values = episode
    count = len(rewards)
    following = [*values[1:].astype(float), 0.0]
    deltas = [float(rewards[i]) + gamma_d * following[i] - float(values[i]) for i in range(count)]
    expected = [sum((gamma_d * gae_lambda) ** (j - i) * deltas[j] for j in range(i, count)) for i in range(count)]
    advantages = estimate_advantages(rewards, values, gamma_d=gamma_d, gae_lambda=gae_lambda)
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-4)


@given(episodes())
def test_equals_rllib_on_a_terminated_episode(episode: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    rewards, values = episode
    phantom = np.float32(7.0)  # RLlib appends one row per episode; what it predicts there must not matter
    ends = np.zeros(len(rewards) + 1, np.float32)
    ends[len(rewards) - 1] = 1.0
    targets = compute_value_targets(
        values=np.append(values, phantom),
        rewards=np.append(rewards, np.float32(0.0)),
        terminateds=ends,
        truncateds=np.append(np.zeros(len(rewards), np.float32), np.float32(1.0)),
        gamma=0.99,
        lambda_=0.95,
    )
    advantages = estimate_advantages(rewards, values, gamma_d=0.99, gae_lambda=0.95)
    np.testing.assert_allclose(advantages, targets[:-1] - values, rtol=1e-4, atol=1e-4)


@given(episodes(), st.floats(0.5, 1), st.data())
def test_with_ratios_it_is_rllibs_vtrace(
    episode: tuple[NDArray[np.float32], NDArray[np.float32]], gamma_d: float, data: st.DataObject
) -> None:
    rewards, values = episode
    log_ratios = data.draw(arrays(np.float32, len(rewards), elements=st.floats(-3, 3, width=32)))
    columns = [torch.from_numpy(column)[:, None] for column in (log_ratios, np.zeros_like(log_ratios), rewards, values)]
    discounts = torch.full((len(rewards), 1), gamma_d)
    discounts[-1] = 0.0
    targets, gradients = vtrace_torch(
        target_action_log_probs=columns[0],
        behaviour_action_log_probs=columns[1],
        discounts=discounts,
        rewards=columns[2],
        values=columns[3],
        bootstrap_values=torch.zeros(1),
    )
    advantages = estimate_advantages(rewards, values, gamma_d=gamma_d, gae_lambda=1.0, ratios=np.exp(log_ratios))
    np.testing.assert_allclose(advantages, targets[:, 0].numpy() - values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(advantages, gradients[:, 0].numpy(), rtol=1e-3, atol=1e-3)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_weights_have_mean_one_and_share_out_what_they_should(lengths: list[int]) -> None:
    for by in ("decision", "episode"):
        weights = decision_weights(lengths, by=by)
        assert len(weights) == sum(lengths)
        assert weights.mean() == pytest.approx(1, rel=1e-5)
    shares = [part.sum() for part in np.split(decision_weights(lengths, by="episode"), np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(shares, np.mean(lengths), rtol=1e-4)


def test_one_decision_is_reward_minus_value() -> None:
    advantages = estimate_advantages(np.float32([2.0]), np.float32([0.5]), gamma_d=0.9, gae_lambda=0.9)
    assert advantages == pytest.approx([1.5])


def test_standardise_gives_zero_mean_and_unit_deviation() -> None:
    result = standardise(np.random.default_rng(0).normal(3, 5, 500).astype(np.float32))
    assert result.mean() == pytest.approx(0, abs=1e-6)
    assert result.std() == pytest.approx(1, abs=1e-6)


def test_equal_advantages_become_zeros() -> None:
    assert standardise(np.full(8, 3.0, np.float32)).tolist() == [0.0] * 8
