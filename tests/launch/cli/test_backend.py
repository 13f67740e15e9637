"""MPLBACKEND names a backend that is nowhere, as a notebook's does in a terminal: every command draws all the same."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from rich.console import Console

from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.evaluate import evaluate
from launch.comparing.orders import ReportOrder
from launch.comparing.report import write_report
from launch.runtime.console import UNSEEN
from launch.training.train import run
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan
from tests.launch.training.toy_policy import toy_policy

ROOT = Path(__file__).parents[3]
PACKAGES = ("addiffusion", "rollout_workers", "reward_service", "learner", "evaluation", "serving", "launch")
NOWHERE = "module://backend_of_some_notebook"
FIGURE = """
import launch  # the entry point, and a worker of Ray Tune, which begins with the module of its trials
from pathlib import Path
from matplotlib.figure import Figure
from evaluation.style import save, style
with style():
    figure = Figure()
    figure.subplots().plot([1, 2])
    save(figure, Path("figure.png"))
"""


@pytest.mark.parametrize("backend", [NOWHERE, "module://matplotlib_inline.backend_inline", "nonsense", "QtAgg", ""])
def test_a_process_draws_whatever_its_environment_names(backend: str, tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FIGURE], env=environment, cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "figure.png").stat().st_size > 1000


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_matplotlib_is_imported_only_where_the_environment_has_been_cleaned_before() -> None:
    """`evaluation` draws, and only `launch` imports it; pyplot would look for the backend."""
    drawing = {path for path in modules() if "matplotlib" in imported(path)}
    assert drawing
    assert {path.relative_to(ROOT).parts[0] for path in drawing} == {"evaluation"}
    assert [path for path in drawing if "matplotlib.pyplot" in imported(path)] == []


def imported(path: Path) -> set[str]:
    """Modules that a file imports, with the packages they are in."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        found |= {name.rsplit(".", count)[0] for name in names for count in range(name.count(".") + 1)}
    return found


def train(folder: Path) -> Path:
    run(toy_plan(folder / "run", toy_config(ppo={"iterations": 1})), console=UNSEEN, roles=toy_components)
    return folder / "run" / "plots"


def report(folder: Path) -> Path:
    train(folder)
    page = folder / "page"
    page.mkdir()
    write_report(ReportOrder(folder=folder / "run", films=1, out=page / "report.html"), roles=toy_components)
    return page


def compare(folder: Path) -> Path:
    (folder / "prompts.txt").write_text("\n".join(f"toy scene {number}" for number in range(60)))
    order = EvaluateOrder(
        policies=(str(toy_policy(folder / "policy")),), prompts=str(folder / "prompts.txt"), out=folder / "out",
        samplers=("ddim-4",), stops=2, best_of=0, prices=(), films=1, limit=6, literature=False,
    )  # fmt: skip
    evaluate(order, overrides=[], console=Console(file=io.StringIO()), roles=toy_components)
    return folder / "out" / "plots"


@pytest.mark.parametrize("command", [train, compare, report])
def test_commands_never_ask_for_the_backend(
    command: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a caller has imported matplotlib before this package could say anything."""
    monkeypatch.setitem(mpl.rcParams, "backend", NOWHERE)
    assert list(command(tmp_path).iterdir())
