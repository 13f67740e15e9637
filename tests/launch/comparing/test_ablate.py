"""Ablations: every shipped study loads; a study of toys trains each variant once and goes on where it was."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.errors import ConfigError
from launch.comparing.ablate import Ablation, ablate, ablation_table, load_ablation, shipped_ablations
from launch.comparing.orders import AblateOrder
from launch.training.preflight import Plan
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once")


@pytest.mark.parametrize("name", shipped_ablations())
def test_every_shipped_study_loads(name: str) -> None:
    ablation = load_ablation(name)
    assert len(ablation.variants) >= 2
    assert ablation.question.endswith("?")


def test_the_studies_the_project_promises_are_there() -> None:
    assert shipped_ablations() == (
        "actions",
        "collection",
        "finish",
        "normalisation",
        "region",
        "reward_terms",
        "state",
    )


def test_an_unknown_study_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ablation called 'colour': choose from actions, collection"):
        load_ablation("colour")
    file = tmp_path / "own.yaml"
    file.write_text("question: none?\n")
    with pytest.raises(ConfigError, match="has no variants"):
        load_ablation(str(file))
    file.write_text("variants:\n  one: ['sampler.finish_steps=-3']\n")
    with pytest.raises(ConfigError, match="finish_steps"):
        load_ablation(str(file))


class Planner:
    """Plans of toys; counts them, and fills in what a variant changes."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, files: Sequence[Path], overrides: Sequence[str]) -> Plan:
        self.asked.append(list(overrides))
        given = dict(item.split("=", 1) for item in overrides)
        config = toy_config(
            ppo={"iterations": 1},
            reward={"c_nfe": float(given.get("reward.c_nfe", 0.01))},
            run={"seed": int(given["run.seed"]), "film_strips": 0},
        )
        plan = toy_plan(Path(given["run.dir"]), config)
        return replace(plan, test_prompts=plan.test_prompts[:2])


def test_each_variant_is_trained_once_and_a_second_call_only_reads(tmp_path: Path) -> None:
    ablation = Ablation(name="price", question="Price?", variants={"cheap": (), "Dear one": ("reward.c_nfe=0.5",)})
    order = AblateOrder(study=ablation.name, out=tmp_path / "study", seeds=2)
    console, planner = Console(file=io.StringIO(), width=160), Planner()
    rows = ablate(ablation, order, console=console, roles=toy_components, plan=planner)
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("cheap", 0), ("Dear one", 0), ("cheap", 1), ("Dear one", 1),
    ]  # fmt: skip
    assert planner.asked[1][-1] == "reward.c_nfe=0.5"
    assert (tmp_path / "study" / "dear-one-1" / "result.json").is_file()
    assert json.loads((tmp_path / "study" / "ablation.json").read_text())["rows"] == rows
    again = ablate(ablation, order, console=console, roles=toy_components, plan=planner)
    assert again == rows
    assert len(planner.asked) == 4
    console.print(ablation_table(ablation, rows))
    assert all(row["episodes_per_s"] > 0 for row in rows)
    assert "Dear one" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_variant_that_can_not_go_on_is_named(tmp_path: Path) -> None:
    ablation = Ablation(name="price", question="Price?", variants={"cheap": ()})
    order = AblateOrder(study=ablation.name, out=tmp_path)
    (tmp_path / "cheap-0").mkdir()
    with pytest.raises(ConfigError, match="cheap-0 was begun and has no checkpoint"):
        ablate(ablation, order, console=Console(file=io.StringIO()), plan=Planner())
