"""A training whose policy may do everything."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.actions import ACTION_NAMES
from addiffusion.config import Config
from addiffusion.policy_files import read_policy
from launch.training.train import run
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once")


def test_a_training_with_all_six_actions_uses_each_and_does_not_collapse(tmp_path: Path) -> None:
    config = toy_config(
        sampler={"num_steps": 8, "warmup_steps": 2, "finish_steps": 2, "leap_steps": 2, "max_cost": 14},
        policy={"hidden": (16,), "actions": ACTION_NAMES, "prior": (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)},
        ppo={"iterations": 3, "batch_size": 24, "minibatch_size": 32},
        run={"record_episodes": True, "film_strips": 1},
    )
    plan, said = toy_plan(tmp_path / "run", Config.model_validate(config.model_dump(mode="json"))), io.StringIO()
    run(plan, console=Console(file=said, width=200), roles=toy_components)
    rows = [json.loads(line) for line in (plan.path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for name in ACTION_NAMES:
            assert 0.01 < row[f"{name}_frac"] < 0.9, name
        assert not any(row[f"alarm_{name}"] for name in ("always_continue", "always_stop", "never_tried"))
    assert rows[-1]["entropy"] > 0.5
    assert "redr%" in said.getvalue()
    result = json.loads((plan.path / "result.json").read_text())
    assert set(result["actions"]) == set(ACTION_NAMES)
    assert (plan.path / "plots" / "film_strips.png").is_file()
    assert read_policy(str(plan.path)).config([]).policy.actions == ACTION_NAMES
