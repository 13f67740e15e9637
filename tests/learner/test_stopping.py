"""Values of stopping, against sums over all stopping times and hand-computed cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.bank.oracle import reward_of_ends
from addiffusion.errors import ConfigError
from learner.stopping import (
    Paths,
    best_fixed_stop,
    oracle_values,
    policy_values,
    returns_of,
    stack,
    stop_advantages,
)
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config


def make_paths(quality: list[list[float]], passes: list[float]) -> Paths:
    table = torch.tensor(quality)
    n, d = table.shape
    return Paths(
        phi=torch.zeros(n, d, 1),
        quality=table,
        passes=torch.tensor(passes).expand(n, d),
        tiers=torch.ones(n, dtype=torch.int64),
    )


def test_values_by_hand() -> None:
    paths, price = make_paths([[0.0, 1.0, 0.5]], [2.0, 1.0, 0.0]), torch.tensor([0.1])
    # last: .5; middle: .5 (1 - .1) + .5 (.5 - .1) = .65; first: .25 (0 - .2) + .75 (.65 - .1) = .3625
    values = policy_values(torch.tensor([[0.25, 0.5, 0.0]]), paths, price)
    torch.testing.assert_close(values, torch.tensor([[0.3625, 0.65, 0.5]]), atol=1e-5, rtol=0)
    # the oracle: .5, max(.9, .4), max(-.2, .8)
    torch.testing.assert_close(oracle_values(paths, price), torch.tensor([[0.8, 0.9, 0.5]]))
    assert best_fixed_stop(paths, price) == 1


@st.composite
def cases(draw: st.DrawFn) -> tuple[Paths, torch.Tensor, torch.Tensor]:
    n, d = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    passes = [float(min(2, d - 1 - i)) for i in range(d)]
    paths = make_paths(torch.randn(n, d, generator=generator).tolist(), passes)
    stop_prob = 0.02 + 0.96 * torch.rand(n, d, generator=generator)
    return paths, stop_prob, 0.3 * torch.rand(n, generator=generator)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_a_policy_is_worth_the_mean_over_its_stopping_times(case: tuple[Paths, torch.Tensor, torch.Tensor]) -> None:
    paths, stop_prob, price = case
    n, d = stop_prob.shape
    reach = torch.cat([torch.ones(n, 1), (1 - stop_prob[:, :-1]).cumprod(1)], dim=1)
    at = torch.cat([reach[:, :-1] * stop_prob[:, :-1], reach[:, -1:]], dim=1)
    totals = torch.stack([returns_of(paths, torch.full((n,), row), price) for row in range(d)], dim=1)
    expected = (at * totals).sum(1)
    torch.testing.assert_close(policy_values(stop_prob, paths, price)[:, 0], expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_no_policy_beats_the_oracle_and_the_best_stop_reaches_its_value(
    case: tuple[Paths, torch.Tensor, torch.Tensor],
) -> None:
    paths, stop_prob, price = case
    oracle = oracle_values(paths, price)[:, 0]
    assert (policy_values(stop_prob, paths, price)[:, 0] <= oracle + 1e-4).all()
    n, d = stop_prob.shape
    best = torch.stack([returns_of(paths, torch.full((n,), row), price) for row in range(d)]).amax(0)
    torch.testing.assert_close(best, oracle, atol=1e-5, rtol=1e-5)


def test_advantages_are_stop_against_going_on() -> None:
    """At the oracle's values they are positive just where it stops, and they grow by what the future is worth less."""
    paths, price = make_paths([[0.3, -0.2, 0.9, 0.1]], [2.0, 2.0, 1.0, 0.0]), torch.tensor([0.05])
    # stop now: .2, -.3, .85, .1; oracle: .75, .8, .85, .1; going on: .75, .8, .05
    oracle = stop_advantages(oracle_values(paths, price), paths, price)
    torch.testing.assert_close(oracle, torch.tensor([[-0.55, -1.1, 0.8, 0.0]]))
    # a policy that never stops: .1 at the end, so -.05, 0, .05 for going on
    never = policy_values(torch.zeros(1, 4), paths, price)
    torch.testing.assert_close(stop_advantages(never, paths, price), torch.tensor([[0.25, -0.3, 0.8, 0.0]]))


@pytest.mark.parametrize("drop", [[], ["efficiency"], ["efficiency", "terminal"], ["quality"]])
def test_stops_are_worth_what_their_episodes_are_paid(tmp_path: Path, drop: list[str]) -> None:
    config = toy_bank_config(reward={"preset": "paired", "drop": drop})
    bank, price = toy_bank(tmp_path, config), 0.07
    paths = stack(bank.trajectories, config.reward)
    n, d = paths.quality.shape
    c_nfe = torch.full((n,), price)
    earned = torch.tensor([reward_of_ends(one, config.reward, c_nfe=price).tolist() for one in bank.trajectories]).T
    for row in range(d):
        torch.testing.assert_close(
            returns_of(paths, torch.full((n,), row), c_nfe), earned[row].float(), atol=1e-5, rtol=1e-5
        )
    torch.testing.assert_close(oracle_values(paths, c_nfe)[:, 0], earned.amax(0).float(), atol=1e-5, rtol=1e-5)
    never = policy_values(torch.zeros(n, d), paths, c_nfe)
    torch.testing.assert_close(never[:, 0], earned[-1].float(), atol=1e-5, rtol=1e-5)
    advantages = stop_advantages(never, paths, c_nfe)
    torch.testing.assert_close(advantages[:, 0], (earned[0] - earned[-1]).float(), atol=1e-5, rtol=1e-5)


def test_untried_stops_lie_between_their_neighbours(tmp_path: Path) -> None:
    config = toy_bank_config()
    exact = stack(toy_bank(tmp_path / "1", config).trajectories, config.reward)
    coarse = stack(toy_bank(tmp_path / "2", config, stride=2).trajectories, config.reward)
    torch.testing.assert_close(coarse.passes, exact.passes)
    torch.testing.assert_close(coarse.quality[:, [0, 2, 4, 5]], exact.quality[:, [0, 2, 4, 5]])
    torch.testing.assert_close(coarse.quality[:, 1], coarse.quality[:, [0, 2]].mean(1), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(exact.nfe(torch.arange(6)), [2, 3, 4, 5, 5, 5])


@pytest.mark.parametrize("reward", [{"preset": "phase1"}, {"credit": "telescoped"}])
def test_rewards_of_the_way_are_refused(tmp_path: Path, reward: dict[str, Any]) -> None:
    bank = toy_bank(tmp_path, toy_bank_config())
    with pytest.raises(ConfigError, match=r"reward.preset=paired and reward.credit=final"):
        stack(bank.trajectories, toy_bank_config(reward=reward).reward)
