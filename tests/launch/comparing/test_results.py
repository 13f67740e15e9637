"""What the results page says of its making."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.cli.app import app
from launch.comparing.comparison_orders import EvaluateOrder, ResultsOrder
from launch.comparing.results import evaluate_command, result_command


def test_the_command_says_what_differs_from_its_defaults() -> None:
    assert result_command(ResultsOrder(limit=30, repeats=2)) == (
        "addiffusion results --policy shipped --limit 30 --seeds 2"
    )
    order = ResultsOrder(limit=30, repeats=1, samplers=("ddim-20", "euler-9"), best_of=0, literature=False)
    assert result_command(order) == (
        "addiffusion results --policy shipped --limit 30 --seeds 1 --sampler ddim-20 --sampler euler-9 "
        "--best-of 0 --no-literature"
    )
    assert result_command(ResultsOrder(repeats=2), ["reward.c_nfe=0.02", "policy.hidden=[64, 8]"]).endswith(
        "--seeds 2 reward.c_nfe=0.02 'policy.hidden=[64, 8]'"
    )


def test_the_command_of_a_comparison_asks_for_this_very_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate_command(EvaluateOrder(prompts="embedded/test")) == (
        "addiffusion evaluate --policy shipped --prompts embedded/test --limit 300 --seeds 1"
    )
    order = EvaluateOrder(
        policies=("runs/my run",), prompts="own.txt", limit=2, out=Path("there"), samplers=("ddim-10", "dpm++2m-8"),
        prices=(0.01,), stops=0, best_of=0, literature=False, sdxl_turbo=Path("turbo"), quick=True,
    )  # fmt: skip
    command = evaluate_command(order, ["sampler.solvers=[ddim, unipc2]"])
    assert command == (
        "addiffusion evaluate --policy 'runs/my run' --prompts own.txt --limit 2 --seeds 1 --sampler ddim-10 "
        "--sampler dpm++2m-8 --price 0.01 --stops 0 --best-of 0 --sdxl-turbo turbo --no-literature --quick "
        "'sampler.solvers=[ddim, unipc2]'"
    )
    asked: list[EvaluateOrder] = []
    monkeypatch.setattr("launch.comparing.evaluate.evaluate", lambda order, **_: asked.append(order))
    CliRunner().invoke(app, shlex.split(command)[1:])
    assert asked == [replace(order, out=None)]
