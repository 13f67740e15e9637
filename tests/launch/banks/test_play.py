from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.bank.archive import Bank, open_bank
from addiffusion.config import Config
from addiffusion.errors import RunFolderError
from evaluation.comparison.bank_stops import against_stops
from evaluation.comparison.contestants import cases_of, full_run
from evaluation.comparison.metric_table import metric_table
from evaluation.comparison.results import ImageResult
from evaluation.comparison.summary import ComparisonResult
from launch.banks.build import build
from launch.banks.orders import BankOrder
from launch.banks.play import play, quality_table, table
from launch.training.run_folder import RunFolder
from learner.checkpoint import Checkpoint, config_digest, save_checkpoint
from learner.tickets import LedgerState
from tests.addiffusion.bank.toy_bank import RANGES, toy_bank_config
from tests.launch.conftest import Ended
from tests.launch.runtime.toy_components import toy_components

pytestmark = pytest.mark.usefixtures("figures_once")

QUIET = Console(quiet=True)
Prefer = Callable[..., Path]


def config_of(**sections: object) -> Config:
    return toy_bank_config(bank={"every": 1, "shard_size": 4}, cluster={"mode": "serial"}, **sections)


@pytest.fixture(scope="module")
def bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank") / "bank"
    build(BankOrder(folder=folder, split="train", count=9), config_of(), console=QUIET, roles=toy_components)
    return folder


@pytest.fixture
def prefer(tmp_path: Path) -> Prefer:
    """Runs whose policy has a preference of its own for one action, in logits."""

    def make(action: Action, bias: float, **sections: Any) -> Path:
        config = config_of(policy={"actions": ["continue", "stop", "refine"]}, **sections)
        folder = RunFolder.create(tmp_path / f"{action.name}{bias:g}", config)
        with toy_components(config) as components:
            learner = components.learner.state()
            last = max(name for name, value in learner.policy.items() if value.shape == (3,))
            learner.policy[last] = learner.policy[last] + bias * torch.eye(3)[action]
            checkpoint = Checkpoint(learner=learner, ledger=LedgerState(), config_digest=config_digest(config))
            save_checkpoint(folder.path, checkpoint, keep=1)
        return folder.path

    return make


def stopped(bank: Bank, stops: NDArray[np.int64]) -> ComparisonResult:
    """A policy that ends each image at its decision of ``stops``, beside its opponents."""
    results = [
        ImageResult(
            contestant="policy", index=row, prompt_id=one.prompt.prompt_id, prompt=one.prompt.text, tier=1, repeat=0,
            seed=one.seed, nfe=int(one.nfe[stop]), scores={"clip": float(one.ends("clip")[one.end_at(stop)])},
        )
        for row, (one, stop) in enumerate(zip(bank.trajectories, stops, strict=True))
    ]  # fmt: skip
    cases = cases_of((one.prompt, one.seed) for one in bank.trajectories)
    return against_stops(bank, metric_table(full_run(config_of().sampler), results, cases, None), stops)


def gaps(bank: Bank, stops: NDArray[np.int64]) -> dict[str, float]:
    """Mean difference in CLIP score from each opponent."""
    result = stopped(bank, stops)
    found = {name: result.against(name, "clip") for name in result.others}
    return {name: one.difference for name, one in found.items() if one is not None}


def shown(*renderables: object) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    for one in renderables:
        console.print(one)
    return console.export_text()


def test_a_policy_is_played_at_several_prices(bank_folder: Path, prefer: Prefer, ended: Ended) -> None:
    played = play(bank_folder, str(prefer(Action.CONTINUE, 0.0)), [0.0, 0.01])
    assert [one.c_nfe for one in played] == [0.0, 0.01]
    assert (ended["shards of the bank"], ended["episodes"]) == ((3, 3), (18, 18))
    for one in played:
        assert one.oracle_reward >= max(one.reward, one.full_reward, one.fixed_reward) - 1e-9
        assert one.fixed_reward >= one.full_reward - 1e-9
        assert np.mean(list(one.nfe_by_tier.values())) == pytest.approx(one.nfe)  # as many prompts in each tier
        assert set(one.differences) == {"scene_soft", "clip"}
    text = shown(table(played), quality_table(played))
    assert "oracle NFE" in text
    assert "fixed stop, mean NFE" in text


def test_images_of_a_setting_each_are_played_too(tmp_path: Path, prefer: Prefer) -> None:
    folder = tmp_path / "settings"
    build(BankOrder(folder=folder, split="train", count=9), config_of(**RANGES), console=QUIET, roles=toy_components)
    (played,) = play(folder, str(prefer(Action.CONTINUE, 1000.0, **RANGES)), [])
    full = [one.end_nfe[-1] for one in open_bank(folder).trajectories]
    assert len(set(full)) > 1
    assert played.nfe == pytest.approx(np.mean(full))


def test_who_never_stops_loses_nothing_and_equals_every_opponent(bank_folder: Path, prefer: Prefer) -> None:
    (played,) = play(bank_folder, str(prefer(Action.CONTINUE, 1000.0)), [])
    assert played.reward == pytest.approx(played.full_reward, abs=1e-6)
    assert played.tier_spearman is None
    for against in played.differences.values():
        for difference in against.values():
            assert difference is not None
            assert difference.difference == pytest.approx(0, abs=1e-12)
    assert played.as_json()["differences"]["clip"]["full"]["count"] == 9
    assert played.other_action_count == 0


def test_decisions_at_which_a_live_policy_would_do_something_else_are_told(bank_folder: Path, prefer: Prefer) -> None:
    (played,) = play(bank_folder, str(prefer(Action.REFINE, 1000.0)), [])
    assert played.other_action_count == played.decision_count > 0
    assert f"{played.other_action_count} of {played.decision_count}" in shown(table([played]))


def test_a_policy_of_all_actions_is_played_by_its_continues_and_stops(bank_folder: Path, tmp_path: Path) -> None:
    config = config_of(policy={"actions": ["continue", "stop", "redraw"]})
    folder = RunFolder.create(tmp_path / "run", config)
    with toy_components(config) as components:
        learner = components.learner.state()
        last = max(name for name, value in learner.policy.items() if value.shape == (6,))
        preferred = 2000 * torch.eye(6)[Action.REDRAW] + 1000 * torch.eye(6)[Action.STOP]
        learner.policy[last] = learner.policy[last] + preferred
        checkpoint = Checkpoint(learner=learner, ledger=LedgerState(), config_digest=config_digest(config))
        save_checkpoint(folder.path, checkpoint, keep=1)
    (played,) = play(bank_folder, str(folder.path), [])
    assert played.nfe == min(end for one in open_bank(bank_folder).trajectories for end in one.end_nfe)
    assert played.other_action_count == played.decision_count > 0, "it would always begin again"


def test_opponents_spend_what_the_policy_spent(bank_folder: Path) -> None:
    bank = open_bank(bank_folder)
    ends = np.stack([one.ends("clip") for one in bank.trajectories])
    nfe = np.stack([one.end_nfe for one in bank.trajectories])
    assert (bank.trajectories[0].end_rows == np.arange(ends.shape[1])).all()  # stop was tried everywhere
    rows = np.arange(len(ends))
    stops = rows % (ends.shape[1] - 2)
    values, spent = ends[rows, stops], nfe[rows, stops]
    found = gaps(bank, stops)
    assert found["full"] == pytest.approx((values - ends[:, -1]).mean())
    # Every deal of these stops to the images is equally likely, so an image has each of them with the same chance.
    assert found["random_stop"] == pytest.approx((values - ends[:, stops].mean(1)).mean())
    below = int(np.flatnonzero(nfe[0] <= spent.mean())[-1])
    share = (spent.mean() - nfe[0, below]) / (nfe[0, below + 1] - nfe[0, below])
    fixed = ends[:, below] * (1 - share) + ends[:, below + 1] * share
    assert found["fixed_stop"] == pytest.approx((values - fixed).mean())


def test_where_few_stops_were_tried_opponents_spend_what_the_images_took(bank_folder: Path) -> None:
    bank = open_bank(bank_folder)
    count = len(bank.trajectories[0].end_rows)
    kept = sorted({*range(1, count, 2), count - 1})
    columns = ("end_rows", "end_nfe", "end_scores", "end_metrics", "end_dino")
    thin = tuple(replace(one, **{name: getattr(one, name)[kept] for name in columns}) for one in bank.trajectories)
    stops = np.zeros(len(thin), np.int64)
    result = stopped(replace(bank, trajectories=thin), stops)
    assert result.others["fixed_stop"].mean("nfe") == pytest.approx(np.mean([one.end_nfe[0] for one in thin]))


def test_too_few_images_have_no_interval(bank_folder: Path) -> None:
    bank = open_bank(bank_folder)
    few: Bank = replace(bank, trajectories=bank.trajectories[:3])
    assert gaps(few, np.zeros(3, np.int64)) == {}


def test_a_policy_that_is_not_there_is_named(bank_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="nowhere"):
        play(bank_folder, str(tmp_path / "nowhere"), [])


def test_where_an_oracle_gains_nothing_there_is_no_share(bank_folder: Path, prefer: Prefer) -> None:
    one = replace(
        play(bank_folder, str(prefer(Action.CONTINUE, 0.0)), [0.0])[0],
        reward=-0.5, full_reward=-0.5, fixed_reward=-0.5, oracle_reward=-0.5,
    )  # fmt: skip
    assert one.oracle_share is None
    assert one.as_json()["fixed_share"] is None
    assert "%" not in shown(table([one]))
