"""Runs, banks and policies that an earlier version wrote go on as they would have there.

Decisions are the same; numbers are compared to rounding, because another processor sums in another order.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from addiffusion import load_policy
from addiffusion.bank.archive import open_bank
from addiffusion.checkpoint_files import latest_checkpoint
from addiffusion.configuration.files import load_resolved
from addiffusion.policy_files import read_policy
from launch.banks.play import play
from launch.comparing.orders import SampleOrder
from launch.comparing.sample import draw
from launch.runtime.serial import serial_components
from launch.training.preflight import prepare
from launch.training.train import run
from learner.checkpoint import is_of, load_checkpoint

pytestmark = pytest.mark.usefixtures("figures_once")

BEFORE = Path(__file__).parents[1] / "data/made_before"
POLICIES = ("run", "run/checkpoints/iteration-000001", "policy")
MEASURED = ("_s", "_per_s")
"""Ends of the names of metrics that a clock says."""


def expected(name: str) -> Any:
    return json.loads((BEFORE / "expected" / name).read_text(encoding="utf-8"))


def test_a_run_goes_on_as_it_did(tmp_path: Path) -> None:
    path = Path(shutil.copytree(BEFORE / "run", tmp_path / "run"))
    plan = prepare([], [f"resume={path}"])
    outcome = run(plan, console=Console(file=io.StringIO()), roles=serial_components)
    assert outcome.result is not None
    assert outcome.result["iterations"] == 2
    first, second = (json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    assert first == json.loads((BEFORE / "run/metrics.jsonl").read_text())
    before = {name: value for name, value in expected("second_iteration.json").items() if not name.endswith(MEASURED)}
    assert before.keys() <= second.keys()
    assert {name: second[name] for name in before} == pytest.approx(before, rel=1e-4, abs=1e-4)
    weights = load_checkpoint(latest_checkpoint(path)).learner.policy
    theirs = load_file(BEFORE / "expected/policy.safetensors")
    assert weights.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)
    card = load_policy(path).card
    assert card is not None, "its table tells what images cost at its price"
    assert [point.cost for point in card.curve] == [outcome.result["mean_cost"]]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_configuration_loads(policy: str) -> None:
    """And says that the checkpoint beside it was trained with it."""
    assert read_policy(str(BEFORE / policy)).config([]).policy.hidden == (4,)


def test_a_checkpoint_is_of_its_configuration() -> None:
    checkpoint = load_checkpoint(latest_checkpoint(BEFORE / "run"))
    config = load_resolved(BEFORE / "run/config.yaml")
    assert is_of(checkpoint, config)
    assert not is_of(checkpoint, config.model_copy(update={"run": config.run.model_copy(update={"seed": 17})}))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_decides_as_it_did(policy: str, tmp_path: Path) -> None:
    before = expected("sampled.json")
    order = SampleOrder(prompt=before["prompt"], seed=0, out=tmp_path / "image.png", policy=BEFORE / policy)
    episode = draw(order, files=[], overrides=[]).episode
    assert order.out.is_file()
    assert episode.image.shape == (64, 64, 3)
    if policy == "policy":
        assert {"actions": episode.actions.tolist(), "nfe": episode.nfe} == before["decided"]
        np.testing.assert_allclose(episode.logits, before["logits"], atol=1e-3)


def test_a_bank_opens_and_is_played() -> None:
    assert len(open_bank(BEFORE / "bank").trajectories) == 3
    found = [one.as_json() for one in play(BEFORE / "bank", str(BEFORE / "policy"), [0.0, 0.02])]
    for one, before in zip(found, expected("played.json"), strict=True):
        by_tier = {str(tier): nfe for tier, nfe in one["nfe_by_tier"].items()}
        assert by_tier == before["nfe_by_tier"]
        assert one["other_action_count"] == before["refine_count"]
        for name in ("nfe", "reward", "full_reward", "oracle_reward", "fixed_nfe", "decision_count"):
            assert one[name] == pytest.approx(before[name], abs=1e-5), name
