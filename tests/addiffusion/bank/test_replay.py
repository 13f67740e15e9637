"""Replay against live episodes: the same tickets, the same weights, the same bits."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.bank import fixed_end, oracle_end, reward_of_ends
from addiffusion.bank.archive import open_bank
from addiffusion.bank.replay import BankRollouts
from addiffusion.config import Config
from addiffusion.errors import ArchiveError, ConfigError, ContractError
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Episode, Ticket
from learner.settings import drawn_setting
from tests.addiffusion.bank.toy_bank import RANGES, toy_bank, toy_bank_config
from tests.rollout_workers.toy_run import make_tickets, make_worker, phi_width

CONFIG = toy_bank_config()
NOT_REPLAYED = {"image", "seconds", "frames", "stop_records"}


def weights_of(config: Config) -> dict[str, NDArray[np.float32]]:
    """A policy that heeds phi, so that episodes stop anywhere."""
    network = PolicyNetwork(phi_width(config), config.policy.hidden, actions=config.policy.actions)
    generator = torch.Generator().manual_seed(5)
    state = {name: torch.randn(value.shape, generator=generator) * 0.3 for name, value in network.state_dict().items()}
    return {name: value.numpy() for name, value in state.items()}


def paid(bank_path: Path, config: Config, tickets: list[Ticket]) -> tuple[list[Ticket], BankRollouts]:
    """The tickets with their references, and a replay with the weights set."""
    bank = toy_bank(bank_path, config)
    references = {(one.prompt.text, one.seed): one.reference for one in bank.trajectories}
    replay = BankRollouts(bank, config)
    replay.set_weights(weights_of(config), 3)
    return [replace(one, reference=references[one.prompt.text, one.seed]) for one in tickets], replay


def assert_equal(replayed: Episode, live: Episode) -> None:
    for part in fields(live):
        if part.name not in NOT_REPLAYED:
            ours, theirs = getattr(replayed, part.name), getattr(live, part.name)
            np.testing.assert_array_equal(ours, theirs, err_msg=part.name)
            assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None), part.name


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("preset", ["paired", "phase1"])
def test_replayed_episodes_are_bitwise_the_live_ones(tmp_path: Path, explore: bool, preset: str) -> None:
    config = toy_bank_config(reward={"preset": preset})
    tickets = [replace(one, c_nfe=0.002 * (1 + one.ticket_id)) for one in make_tickets(6, explore=explore)]
    tickets, replay = paid(tmp_path, config, tickets)
    worker = make_worker(config)
    worker.set_weights(weights_of(config), 3)
    live, replayed = worker.collect(tickets).episodes, replay.collect(tickets).episodes
    for ours, theirs in zip(replayed, live, strict=True):
        assert_equal(ours, theirs)
    assert len({episode.nfe for episode in live}) > 1


def test_images_of_a_setting_each_are_played_as_they_were_drawn(tmp_path: Path) -> None:
    """Steps, guidance and what a pass costs are the image's own; any other setting of it is refused."""
    config = toy_bank_config(**RANGES)
    tickets = [replace(one, setting=drawn_setting(config, one.seed)) for one in make_tickets(6)]
    tickets, replay = paid(tmp_path, config, tickets)
    assert [one.setting for one in open_bank(tmp_path, config).trajectories] == [one.setting for one in tickets]
    worker = make_worker(config)
    worker.set_weights(weights_of(config), 3)
    live = worker.collect(tickets).episodes
    for ours, theirs in zip(replay.collect(tickets).episodes, live, strict=True):
        assert_equal(ours, theirs)
    assert {episode.cost / episode.nfe for episode in live} == {0.5, 1.0}
    (failed,) = replay.collect([replace(tickets[0], setting=None)]).failed
    assert failed.final
    assert "asks for None, but the bank's image was drawn with Setting(solver='ddim', num_steps=" in failed.reason
    with pytest.raises(ArchiveError, match=r"backbone\.guidance_scale_range \(.*, sampler\.num_steps_range \("):
        open_bank(tmp_path, toy_bank_config())
    with pytest.raises(ConfigError, match=r"A study needs images of one setting.*sampler\.num_steps_range=null"):
        open_bank(tmp_path, config).require_one_setting("A study")


@pytest.mark.parametrize("forced", [Action.CONTINUE, Action.STOP])
def test_forced_episodes_are_the_live_ones(tmp_path: Path, forced: Action) -> None:
    tickets, replay = paid(tmp_path, CONFIG, make_tickets(6, forced=forced))
    live = make_worker(CONFIG).collect(tickets).episodes
    for ours, theirs in zip(replay.collect(tickets).episodes, live, strict=True):
        assert_equal(ours, replace(theirs, weight_version=3))


def test_the_oracle_earns_the_best_reward_of_all_live_episodes(tmp_path: Path) -> None:
    tickets, _ = paid(tmp_path, CONFIG, make_tickets(6))
    bank = toy_bank(tmp_path, CONFIG)
    for ticket, one in zip(tickets, bank.trajectories, strict=True):
        returns = reward_of_ends(one, CONFIG.reward, c_nfe=ticket.c_nfe)
        for row in range(len(one.steps)):
            chosen = BankRollouts(bank, CONFIG, chooser=lambda _, __, row=row: row).collect([ticket]).episodes[0]
            assert chosen.rewards.astype(np.float64).sum() == pytest.approx(returns[one.end_at(row)], abs=1e-5)
        assert returns[oracle_end(returns)] == returns.max()


def test_fixed_ends_and_first_of_equals(tmp_path: Path) -> None:
    one = toy_bank(tmp_path, CONFIG).trajectories[0]
    assert one.end_nfe.tolist() == [5, 6, 7, 8, 8, 8]
    assert [fixed_end(one, nfe=nfe) for nfe in (0.0, 6.4, 6.5, 99.0)] == [0, 1, 1, 3]
    assert oracle_end(np.array([1.0, 2.0, 2.0])) == 1
    with pytest.raises(ConfigError, match="no number"):
        oracle_end(np.array([1.0, np.nan]))


def test_unknown_images_fail_their_ticket_only(tmp_path: Path) -> None:
    tickets, replay = paid(tmp_path, CONFIG, make_tickets(6))
    collected = replay.collect([replace(tickets[0], seed=77), tickets[1]])
    assert [failed.ticket.seed for failed in collected.failed] == [77]
    assert [episode.ticket.ticket_id for episode in collected.episodes] == [1]


def test_what_a_bank_can_not_play_is_refused(tmp_path: Path) -> None:
    bank = toy_bank(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match=r"policy.actions=\[continue,stop\]"):
        BankRollouts(bank, toy_bank_config(policy={"hidden": (16,)}))
    replay = BankRollouts(bank, CONFIG)
    with pytest.raises(ContractError, match="another sampler"):
        replay.collect(make_tickets(1), sampler=CONFIG.sampler.model_copy(update={"num_steps": 4}))
    with pytest.raises(ContractError, match="forced actions other than continue and stop"):
        replay.collect(make_tickets(1, forced=Action.REFINE))
