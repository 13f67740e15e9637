from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

from learner.gae import estimate_advantages, standardise

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


def test_one_decision_is_reward_minus_value() -> None:
    advantages = estimate_advantages(np.float32([2.0]), np.float32([0.5]), gamma_d=0.9, gae_lambda=0.9)
    assert advantages == pytest.approx([1.5])


def test_standardise_gives_zero_mean_and_unit_deviation() -> None:
    result = standardise(np.random.default_rng(0).normal(3, 5, 500).astype(np.float32))
    assert result.mean() == pytest.approx(0, abs=1e-6)
    assert result.std() == pytest.approx(1, abs=1e-6)


def test_equal_advantages_become_zeros() -> None:
    assert standardise(np.full(8, 3.0, np.float32)).tolist() == [0.0] * 8
