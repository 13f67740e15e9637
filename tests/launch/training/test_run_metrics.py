"""Every number of an iteration is declared, once, and shown on the dashboard that ships."""

from __future__ import annotations

import io
import re
import runpy
from pathlib import Path

import yaml
from rich.console import Console

from addiffusion.metrics import Metric
from addiffusion.rollouts import WorkerStatus
from launch.runtime import metrics as run_metrics
from launch.runtime.metrics import ROW, _worker_metrics, export
from launch.training.train import run
from reward_service import metrics as reward_metrics
from rollout_workers import metrics as rollout_metrics
from serving import metrics as serve_metrics
from tests.cluster.head import ROOT
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

DECLARED = (*run_metrics.ALL, *reward_metrics.ALL, *rollout_metrics.ALL, *serve_metrics.ALL)


class Notebook:
    """Meters that keep the last value of everything."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        self.values[metric.name] = value


def test_a_row_holds_exactly_what_is_declared(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "run", toy_config(ppo={"iterations": 1}))
    run(plan, console=Console(file=io.StringIO()), roles=toy_components)
    (line,) = (plan.path / "metrics.jsonl").read_text().splitlines()
    row = yaml.safe_load(line) | _worker_metrics(WorkerStatus(up_count=2, absent_count=1, lost_count=3, moved_count=4))
    assert {key for key in row if not key.startswith("stage_")} == {entry.key for entry in ROW} - {
        "nfe_tier2",
        "nfe_tier3",
        "leap_frac",
        "unguided_frac",
        "redraw_frac",
    }, "the toy's prompts are all of tier 1, and its policy has three actions"
    notebook = Notebook()
    export(row, notebook)
    assert notebook.values["addiffusion_run_workers_lost"] == 3
    assert notebook.values["addiffusion_agent_nfe"] == row["nfe"]


def test_each_is_declared_once_with_a_unit_and_a_sentence() -> None:
    assert len({metric.name for metric in DECLARED}) == len(DECLARED)
    for metric in DECLARED:
        assert metric.unit
        assert metric.description.endswith(".")


def test_the_shipped_dashboard_is_made_from_the_declarations() -> None:
    made = runpy.run_path(str(ROOT / "scripts/grafana_dashboard.py"))
    assert made["FILE"].read_text() == made["text"](), "run `uv run python scripts/grafana_dashboard.py`"
    for metric in DECLARED:
        assert f"ray_{metric.name}" in made["text"]()


def test_alerts_ask_for_series_that_are_declared() -> None:
    rules = yaml.safe_load((ROOT / "cluster/monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    known = {f"ray_{metric.name}{'_total' if metric.kind == 'counter' else ''}" for metric in DECLARED}
    for rule in rules:
        assert set(re.findall(r"ray_addiffusion_\w+", rule["expr"])) <= known
        assert rule["annotations"]["action"]
