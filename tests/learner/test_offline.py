"""BC and MARWIL by RLlib's own losses: against their formulas, and on demonstrations from a bank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from addiffusion.bank import oracle_end, reward_of_ends
from addiffusion.bank.archive import Bank
from addiffusion.bank.replay import BankRollouts, any_chooser, oracle_chooser
from addiffusion.config import Config
from addiffusion.policy import PolicyNetwork
from learner.algorithm_config import build_ppo_config
from learner.marwil_learner import MARWIL_BETA, NORM_RATE, NORM_START, EpisodeMarwilLearner
from learner.tickets import PoolEntry
from learner.training import Training, build_ledger
from learner.update import PolicyLearner
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config
from tests.rollout_workers.toy_run import make_tickets, phi_width


def offline_config(algorithm: str, folder: Path, **ppo: Any) -> Config:
    return toy_bank_config(
        ppo={"algorithm": algorithm, "iterations": 12, "batch_size": 12, "minibatch_size": 16, "lr": 1e-2, **ppo},
        warm_start={"bank": folder},
    )


def trained(algorithm: str, folder: Path) -> tuple[Bank, Config, PolicyLearner, list[float]]:
    config = offline_config(algorithm, folder)
    bank = toy_bank(folder, config)
    chooser = oracle_chooser(config.reward) if algorithm == "bc" else any_chooser
    pool = [PoolEntry(prompt=one.prompt, seed=one.seed, reference=one.reference) for one in bank.trajectories]
    built = build_ppo_config(config, observation_width=phi_width(config))
    learner = PolicyLearner(built.build_learner())
    training = Training(
        config,
        ledger=build_ledger(config, pool),
        rollouts=BankRollouts(bank, config, chooser=chooser),
        learner=learner,
    )
    losses = [training.step().update["total_loss"] for _ in range(config.ppo.iterations)]
    assert training.finished
    return bank, config, learner, losses


def test_cloning_takes_over_where_the_oracle_stops(tmp_path: Path) -> None:
    bank, config, learner, losses = trained("bc", tmp_path)
    assert losses[-1] < 0.5 * losses[0]
    network = PolicyNetwork(phi_width(config), config.policy.hidden, actions=config.policy.actions)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in learner.weights().items()})
    agreed = 0
    for one in bank.trajectories:
        stop = int(one.end_rows[oracle_end(reward_of_ends(one, config.reward, c_nfe=config.reward.c_nfe))])
        with torch.no_grad():
            stops = network(torch.from_numpy(one.phi)).argmax(-1).numpy() == 1
        agreed += int((stops.argmax() if stops.any() else len(stops) - 1) == stop)
    assert agreed >= len(bank.trajectories) - 1


def test_marwil_learns_from_stops_anywhere(tmp_path: Path) -> None:
    *_, losses = trained("marwil", tmp_path)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("algorithm", ["bc", "marwil"])
def test_the_loss_is_the_formula(algorithm: str, tmp_path: Path) -> None:
    """-mean(exp(beta A / sqrt(c)) log pi) + vf A^2 / 2, with c the running mean square of A (arXiv:1806.00589)."""
    config = offline_config(algorithm, tmp_path)
    learner = build_ppo_config(config, observation_width=phi_width(config)).build_learner()
    assert isinstance(learner, EpisodeMarwilLearner)
    learner.step_metrics = []
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 3, generator=generator)
    phi = torch.randn(5, phi_width(config), generator=generator)
    actions, targets = torch.tensor([0, 1, 1, 0, 2]), torch.randn(5, generator=generator)
    loss = learner.compute_loss_for_module(
        module_id="default_policy",
        config=None,
        batch={"obs": phi, "actions": actions, "value_targets": targets},
        fwd_out={"action_dist_inputs": logits},
    )
    log_probs = torch.log_softmax(logits, -1)[torch.arange(5), actions]
    with torch.no_grad():
        values = learner.module["default_policy"].unwrapped().compute_values({"obs": phi})
    advantages = targets - values
    norm = NORM_START + NORM_RATE * (advantages.square().mean() - NORM_START)
    weights = torch.exp(MARWIL_BETA * advantages / (1e-8 + norm.sqrt()))
    expected = -log_probs.mean()
    if algorithm == "marwil":
        expected = -(weights * log_probs).mean() + config.ppo.value_coeff * 0.5 * advantages.square().mean()
    torch.testing.assert_close(loss.detach(), expected)


def test_choosers_are_functions_of_the_ticket(tmp_path: Path) -> None:
    config = toy_bank_config()
    one = toy_bank(tmp_path, config, count=1).trajectories[0]
    ticket = replace(make_tickets(1)[0], prompt=one.prompt, seed=one.seed)
    rows = {any_chooser(one, replace(ticket, action_seed=seed)) for seed in range(40)}
    assert rows == set(one.end_rows.tolist())
    dear, free = (oracle_chooser(config.reward)(one, replace(ticket, c_nfe=price)) for price in (1e3, 0.0))
    assert dear == 0
    assert free >= dear
