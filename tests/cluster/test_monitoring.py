"""A real Prometheus beside a running training: every panel and every alert has numbers; the Actors page has names."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.head import ROOT, Head, free_ports, started
from tests.cluster.training import rows, train_command
from tests.cluster.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
JOB_S, SCRAPED_S = 240.0, 120.0
RUN = "runs/watched"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not installed")
def test_every_panel_and_every_alert_has_numbers(head: Head, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = ["prometheus", f"--config.file={configuration(head, tmp_path)}", f"--storage.tsdb.path={tmp_path}/data"]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with started([*command, listen], head.environment, tmp_path / "prometheus.log"):
        head.submit("watched", *train_command(RUN, 100_000))
        run = head.folder / RUN
        wait_for(
            "iterations", lambda: len(rows(run)) >= 2, timeout_s=JOB_S, give_up=lambda: head.logs("watched")[-2000:]
        )
        missing = panels() + alerts()
        try:
            wait_for(
                "all numbers",
                lambda: not still_missing(missing, port),
                timeout_s=SCRAPED_S,
                give_up=lambda: str(missing),
            )
            assert speaking_actors(head) >= {"DiffusionRunner(worker 1", "RewardActor("}
        finally:
            head.ray("job", "stop", "--address", head.dashboard, "watched")


def configuration(head: Head, folder: Path) -> Path:
    """The shipped file, with the discovery file of this head and a quicker pace."""
    config = yaml.safe_load((ROOT / "cluster/monitoring/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    config["rule_files"] = [str(ROOT / "cluster/monitoring/alerts.yml")]
    discovery = str(head.folder / "ray" / "prom_metrics_service_discovery.json")
    config["scrape_configs"][0]["file_sd_configs"] = [{"files": [discovery], "refresh_interval": "2s"}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


def panels() -> list[str]:
    """Every expression of the dashboard."""
    dashboard = json.loads((ROOT / "cluster/monitoring/grafana_dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def alerts() -> list[str]:
    """Every number that an alert compares with its limit."""
    rules = yaml.safe_load((ROOT / "cluster/monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    return [re.sub(r"\s[<>]=?\s[\d.]+$", "", rule["expr"]) for rule in rules]


def still_missing(expressions: list[str], port: int) -> list[str]:
    """Strike out what has numbers by now."""
    expressions[:] = [expression for expression in expressions if not query(expression, port)]
    return expressions


def query(expression: str, port: int) -> list[Any]:
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return found["data"]["result"]


def speaking_actors(head: Head) -> set[str]:
    """The beginnings of what the Actors page calls the actors of the run."""
    actors = head.get("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    names = [actor["repr_name"] for actor in actors if actor["state"] == "ALIVE"]
    return {start for start in ("DiffusionRunner(worker 1", "RewardActor(") if any(n.startswith(start) for n in names)}
