"""Whole runs that begin at a trajectory bank, on the toys."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from addiffusion.checkpoint_files import latest_checkpoint
from addiffusion.configuration.files import load_config
from addiffusion.errors import ConfigError
from addiffusion.records import Prompt
from launch.training.references import known_references
from launch.training.train import run
from learner.checkpoint import load_checkpoint
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config
from tests.launch.runtime.toy_components import toy_components, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once")

QUIET = Console(quiet=True)


def finished(tmp_path: Path, **ppo: Any) -> tuple[Path, dict[str, Any]]:
    """A run from a bank of its own, to the end."""
    config = toy_bank_config(
        cluster={"mode": "serial"},
        ppo={"batch_size": 4, "minibatch_size": 8, "epochs": 1, **ppo},
        warm_start={"bank": tmp_path / "bank", "clone_epochs": 1, "improve_epochs": 1},
        evaluation={"static_steps": 4},
        run={"film_strips": 0},
    )
    plan = replace(toy_plan(tmp_path / "run", config), bank=toy_bank(tmp_path / "bank", config))
    outcome = run(plan, console=QUIET, roles=toy_components)
    assert outcome.result is not None
    return tmp_path / "run", outcome.result


def test_a_warm_start_alone_is_a_run(tmp_path: Path) -> None:
    folder, result = finished(tmp_path, iterations=0)
    report = json.loads((folder / "warm_start.json").read_text())
    assert report["oracle_reward"] >= report["reward"]
    assert result["iterations"] == 0
    assert load_checkpoint(latest_checkpoint(folder)).iteration == 0


@pytest.mark.parametrize("algorithm", ["ppo", "bc", "marwil"])
def test_it_goes_on_by_each_algorithm(tmp_path: Path, algorithm: str) -> None:
    folder, result = finished(tmp_path, iterations=2, algorithm=algorithm)
    assert result["iterations"] == 2
    assert (folder / "warm_start.json").exists() == (algorithm == "ppo")
    assert load_checkpoint(latest_checkpoint(folder)).iteration == 2


def test_a_bank_knows_its_references_and_no_others(tmp_path: Path) -> None:
    bank = toy_bank(tmp_path, toy_bank_config())
    pairs = [(one.prompt, one.seed) for one in bank.trajectories[:2]]
    known = known_references([*pairs, (Prompt(prompt_id=9, text="unknown", tier=1), 3)], bank)
    assert set(known) == {(prompt.text, seed) for prompt, seed in pairs}
    assert known_references(pairs, None) == {}


def test_offline_learning_without_a_bank_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set warm_start\.bank to one"):
        load_config((), ["ppo.algorithm=bc"])


def test_prices_that_fall_are_refused() -> None:
    with pytest.raises(ConfigError, match="must not fall"):
        load_config((), ["reward.c_nfe_range=[0.02,0.01]"])
