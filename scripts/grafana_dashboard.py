"""Write cluster/monitoring/grafana_dashboard.json from the metrics that the roles declare.

Run it after a metric was added: `uv run python scripts/grafana_dashboard.py`. A test compares the file with its source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from addiffusion.metrics import Metric
from launch.runtime import metrics as run_metrics
from reward_service import metrics as reward_metrics
from rollout_workers import metrics as rollout_metrics
from serving import metrics as serve_metrics

FILE: Final = Path(__file__).parents[1] / "cluster/monitoring/grafana_dashboard.json"
COLUMNS, WIDTH, HEIGHT = 4, 6, 7
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
UNITS: Final = {"seconds": "s", "milliseconds": "ms", "fraction": "percentunit"}


def _of_group(group: str) -> list[Metric]:
    return [metric for metric in run_metrics.ALL if metric.name.startswith(f"addiffusion_{group}_")]


ROWS: Final[Sequence[tuple[str, Sequence[Metric]]]] = (
    ("Run", _of_group("run")),
    ("Agent behaviour", _of_group("agent")),
    ("Rollout workers", rollout_metrics.ALL),
    ("Reward service", reward_metrics.ALL),
    ("Learner", _of_group("learner")),
    ("Server", serve_metrics.ALL),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it: one row of panels per role, one panel per metric."""
    return {
        "uid": "addiffusion",
        "title": "AdDiffusion",
        "tags": ["addiffusion", "ray"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"}]
        },
        "panels": list(_panels()),
    }


def queries(metric: Metric) -> list[tuple[str, str]]:
    """(expression, legend) of a metric's panel. Events that have not happened yet are zero, not missing."""
    name = f"ray_{metric.name}"
    tags = "".join(f", {tag}" for tag in metric.tags)
    legend = " ".join(f"{{{{{tag}}}}}" for tag in metric.tags)
    if metric.kind == "counter":
        by = f" by ({', '.join(metric.tags)})" if metric.tags else ""
        return [(f"sum{by} (rate({name}_total[1m])) or vector(0)", legend or "per second")]
    if metric.kind == "histogram":
        rate = f"sum by (le{tags}) (rate({name}_bucket[1m]))"
        return [(f"histogram_quantile({q}, {rate})", f"{legend} p{100 * q:.0f}".strip()) for q in (0.5, 0.95)]
    source = {"addiffusion_rollout": "worker", "addiffusion_reward": "replica", "addiffusion_serve": "replica"}
    owner = next((tag for start, tag in source.items() if metric.name.startswith(start)), "run")
    return [(f"max by ({owner}) ({name})", f"{{{{{owner}}}}}")]


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for title, metrics in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": COLUMNS * WIDTH, "x": 0, "y": y},
        }
        for index, metric in enumerate(metrics):
            number += 1
            place = {"h": HEIGHT, "w": WIDTH, "x": WIDTH * (index % COLUMNS), "y": y + 1 + HEIGHT * (index // COLUMNS)}
            yield _panel(number, metric, place)
        number, y = number + 1, y + 1 + HEIGHT * -(-len(metrics) // COLUMNS)


def _panel(number: int, metric: Metric, place: dict[str, int]) -> dict[str, Any]:
    unit = UNITS.get(metric.unit, "none")
    title = metric.name.removeprefix("addiffusion_").split("_", 1)[1].replace("_", " ")
    per_second = metric.kind == "counter"
    return {
        "id": number,
        "type": "timeseries",
        "title": f"{title} per second" if per_second else title,
        "description": f"{metric.description} [{metric.unit}]",
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": "none" if per_second else unit}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
            for index, (expression, legend) in enumerate(queries(metric))
        ],
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
