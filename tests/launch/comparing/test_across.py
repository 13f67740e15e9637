"""`evaluate --guidance ... --steps ...` around toy models: a comparison for each setting, one table over them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from addiffusion.errors import UsageError
from launch.comparing.across import Across, evaluate_across, settings_of
from launch.comparing.evaluate_view import settings_table
from launch.comparing.orders import EvaluateOrder
from tests.launch.runtime.toy_components import toy_components
from tests.launch.training.toy_policy import toy_policy

pytestmark = pytest.mark.usefixtures("figures_once")


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> EvaluateOrder:
    folder = tmp_path_factory.mktemp("across")
    (folder / "prompts.txt").write_text("\n".join(f"toy scene {number}" for number in range(60)))
    return EvaluateOrder(
        policy=str(toy_policy(folder / "policy")), prompts=str(folder / "prompts.txt"), out=folder / "out", limit=8,
        guidance=(1.5, 3.0), steps=(8,), quick=True, stops=0, films=0, literature=False, samplers=("ddim-4",),
    )  # fmt: skip


def across_of(order: EvaluateOrder) -> Across:
    return evaluate_across(order, overrides=(), console=Console(file=io.StringIO()), roles=toy_components)


@pytest.fixture(scope="module")
def across(order: EvaluateOrder) -> Across:
    return across_of(order)


def test_each_setting_is_a_comparison_of_its_own(order: EvaluateOrder, across: Across) -> None:
    names = ["g1.5-s8", "g3-s8"]
    assert sorted(one.name for one in across.path.iterdir() if one.is_dir()) == names
    for name, (_, _, overrides) in zip(names, settings_of(order), strict=True):
        manifest = json.loads((across.path / name / "comparison.json").read_text())
        asked = [f"backbone.guidance_scale={manifest['backbone']['guidance_scale']}"]
        assert [*asked, f"sampler.num_steps={manifest['sampler']['num_steps']}"] == overrides
    assert [row.title for row in across.rows] == ["guidance 1.5, 8 steps", "guidance 3, 8 steps", "mean"]


def test_every_guidance_meets_every_number_of_steps_once() -> None:
    order = EvaluateOrder(guidance=(2.0, 2.0, 3.5), steps=(20, 50))
    assert [name for _, name, _ in settings_of(order)] == ["g2-s20", "g2-s50", "g3.5-s20", "g3.5-s50"]
    assert settings_of(EvaluateOrder(steps=(20,))) == [("20 steps", "s20", ["sampler.num_steps=20"])]


def test_the_mean_is_that_of_the_settings_and_prompts_stay_the_units(across: Across) -> None:
    *settings, mean = across.rows
    assert mean.score == pytest.approx(np.mean([row.score for row in settings]))
    assert mean.nfe == pytest.approx(np.mean([row.nfe for row in settings]))
    for name, found in mean.against.items():
        assert found.difference == pytest.approx(np.mean([row.against[name].difference for row in settings]))
        assert found.count == 8
    assert set(mean.against) == {"full", "mean-stop", "refined-stop", "random-stop", "static"}


def test_both_tables_have_every_row_and_programs_have_the_numbers(across: Across) -> None:
    written = (across.path / "settings.md").read_text()
    assert all(f"| {row.title} |" in written for row in across.rows)
    stream = io.StringIO()
    Console(file=stream, width=220).print(settings_table(across.rows, across.metric))
    assert "guidance 3, 8 steps" in stream.getvalue()
    found = json.loads((across.path / "settings.json").read_text())
    assert found["settings"][0]["against"]["full"]["count"] == 8
    assert found["settings"][0]["holds"] in (True, False)
    assert found["settings"][-1]["holds"] is None


def test_a_setting_that_can_not_be_is_refused_before_anything_is_drawn(order: EvaluateOrder, tmp_path: Path) -> None:
    changed = EvaluateOrder(policy=order.policy, prompts=order.prompts, out=tmp_path / "out", steps=(8, 2))
    with pytest.raises(UsageError, match="warmup_steps"):
        across_of(changed)
    assert not (tmp_path / "out").exists()
