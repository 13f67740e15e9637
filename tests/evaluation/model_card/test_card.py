"""The model card: figures by hand, and the whole of it measured from the shipped weights at the smallest size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from addiffusion.assets import WEIGHTS_FOLDER
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.errors import WeightsError
from evaluation.model_card import drawing
from evaluation.model_card.curves import arrival
from evaluation.model_card.drawing import BATCH, CardRunner, Setting
from evaluation.model_card.model_card import ModelCard, measure_card
from evaluation.model_card.page import write_page
from evaluation.model_card.plan import CardPlan, ignore
from evaluation.model_card.targets import Target, targets
from launch.cli.app import app

SMALL = CardPlan(
    weights=WEIGHTS_FOLDER,
    full_steps=4,
    prompts_per_tier=2,
    curve_prompts_per_tier=2,
    guidances=(2.0, 3.5),
    steps=(1, 4),
    renders=12,
    slots=2,
    repeats=3,
)


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """Six prompts need no passes over 32 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "BATCH", 8)
        yield


@pytest.fixture(scope="module")
def measured() -> tuple[ModelCard, CardRunner, int]:
    passes: list[int] = []
    card, runner = measure_card(SMALL, lambda _, done: passes.append(done))
    return card, runner, sum(passes)


def test_arrival_is_the_first_and_the_last_time_within_one_percent() -> None:
    scores = np.array([[0.0, 1.0, 0.995], [1.0, 0.2, 0.1], [0.5, 1.0, 0.2], [1.0, 1.0, 1.0]])
    first, settled = arrival(scores)
    assert first.tolist() == [2, 1, 1]
    assert settled.tolist() == [4, 3, 4]


def test_an_image_better_than_its_end_has_arrived() -> None:
    assert arrival(np.array([[0.1], [0.9], [0.8]])) == ([2], [2])


def test_the_loss_of_a_short_run_is_relative_to_the_full_one(measured: tuple[ModelCard, CardRunner, int]) -> None:
    card = replace(measured[0], quality={"ddim5_soft_tier3": 0.6, "soft_tier3": 0.8})
    assert card.loss(5, 3) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("reached", "at_least", "met"), [(0.5, True, True), (0.49, True, False), (0.5, False, True), (0.51, False, False)]
)
def test_a_target_is_met_on_its_own_side(reached: float, at_least: bool, met: bool) -> None:
    target = Target(name="x", asked=0.5, reached=reached, at_least=at_least)
    assert target.met is met
    assert ("**not met**" in target.row()) is not met


def test_every_figure_is_finite_and_shares_are_shares(measured: tuple[ModelCard, CardRunner, int]) -> None:
    figures = measured[0].as_json()
    curves = figures.pop("curves")
    assert all(np.isfinite(value) for value in figures.values())
    for tier in TIERS:
        assert 0 <= figures[f"strict_tier{tier}"] <= figures[f"soft_tier{tier}"] <= 1
        assert 1 <= figures[f"first_step_tier{tier}"] <= figures[f"settled_step_tier{tier}"] <= SMALL.full_steps
        assert 0 < figures[f"ddim1_loss_tier{tier}"] < 1, "one step is worse than four"
    assert figures["autoencoder_clean_strict"] == 1.0
    assert len(curves["static"]) == len(SMALL.guidances) * len(SMALL.solvers) * len(SMALL.steps) * len(TIERS)
    assert len(curves["full"][0]["soft"]) == SMALL.full_steps
    assert 10 < figures["weights_mb"] <= 40


def test_the_card_repeats_itself(measured: tuple[ModelCard, CardRunner, int]) -> None:
    card, runner, _ = measured
    prompts = runner.prompts(2)
    setting = Setting(solver="ddim", steps=SMALL.full_steps, guidance=card.guidance)
    judged = runner.judge(runner.images(prompts, setting, "again"), prompts)
    strict = {tier: card.quality[f"strict_tier{tier}"] for tier in TIERS}
    assert {p.tier for p in prompts} == set(TIERS)
    assert np.mean(judged["scene_strict"]) == pytest.approx(np.mean(list(strict.values())))


def test_a_short_batch_draws_the_same_images(measured: tuple[ModelCard, CardRunner, int]) -> None:
    runner = measured[1]
    setting = Setting(solver="dpm++2m", steps=2, guidance=2.0)
    assert np.array_equal(
        runner.images(runner.prompts(1), setting, "one"), runner.images(runner.prompts(2), setting, "two")[:3]
    )
    assert BATCH % 2 == 0


def test_the_page_holds_every_table_and_its_pictures_open(
    measured: tuple[ModelCard, CardRunner, int], tmp_path: Path
) -> None:
    card, runner, passes = measured
    written: list[int] = []
    runner = CardRunner(SMALL, lambda _, done: written.append(done))
    files = write_page(card, runner, tmp_path / "embedded.md")
    text = files[0].read_text(encoding="utf-8")
    assert "$" not in text.replace("$ uv", "")
    linked = re.findall(r"\]\((embedded/\w+\.png)\)", text)
    assert len(linked) == 5
    for name in linked:
        assert Image.open(tmp_path / name).size > (400, 300)
    assert all(target.name in text for target in targets(card))
    assert passes + sum(written) == SMALL.passes


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pipeline"):
        measure_card(replace(SMALL, weights=tmp_path), ignore)


def test_the_command_prints_json_alone_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[CardPlan] = []

    def run(plan: CardPlan, *, page: Path | None, console: object) -> dict[str, float]:
        plans.append(plan)
        return {"strict_tier1": 1.0}

    monkeypatch.setattr("launch.world.model_card.run_card", run)
    result = CliRunner().invoke(app, ["embedded", "card", "--json", "--prompts", "3"])
    assert json.loads(result.stdout) == {"strict_tier1": 1.0}
    assert plans[0].prompts_per_tier == 3
    assert plans[0].weights == WEIGHTS_FOLDER
