"""Beside a running training Prometheus has numbers for every panel and alert, and a browser finds jobs and actors."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.browser import CHROMIUM, Page, browser
from tests.cluster.head import ROOT, Head, free_ports, started
from tests.cluster.training import rows, train_command
from tests.cluster.waiting import wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not installed"),
]
JOB_S, SCRAPED_S, SHOWN_S = 240.0, 120.0, 120.0
RUN = "runs/watched"
QUESTION = "Authentication Token Required"
PAGES = {
    "jobs": ("watched", "RUNNING", "addiffusion train"),
    "actors": ("DiffusionRunner(worker 1", "RewardActor(", "ALIVE"),
}
"""Pages of Ray's dashboard, and what a reader has to find there while the training runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A training that goes on and on, and the Prometheus beside it."""

    head: Head
    prometheus: int
    """Its port."""


@pytest.fixture(scope="module")
def watched(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder, (port,) = tmp_path_factory.mktemp("prometheus"), free_ports(1)
    command = ["prometheus", f"--config.file={configuration(head, folder)}", f"--storage.tsdb.path={folder}/data"]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    run = head.folder / RUN
    with started([*command, listen], head.environment, folder / "prometheus.log"):
        head.submit("watched", *train_command(RUN, 100_000))
        try:
            wait_for(
                "iterations", lambda: len(rows(run)) >= 2, timeout_s=JOB_S, give_up=lambda: head.logs("watched")[-2000:]
            )
            yield Watched(head=head, prometheus=port)
        finally:
            head.ray("job", "stop", "--address", head.dashboard, "watched")


def test_every_panel_and_every_alert_has_numbers(watched: Watched) -> None:
    missing = panels() + alerts()
    assert len(missing) > 70
    wait_for(
        "all numbers",
        lambda: not still_missing(missing, watched.prometheus),
        timeout_s=SCRAPED_S,
        give_up=lambda: str(missing),
    )
    exported = {found["metric"]["__name__"] for found in query('{__name__=~"ray_addiffusion_.+"}', watched.prometheus)}
    assert "ray_addiffusion_rollout_episodes_total" in exported, "events have the name that the expressions ask for"


def test_no_alert_is_wrongly_written(watched: Watched) -> None:
    """Prometheus itself evaluates them; a training that is well fires none that pages somebody."""

    def evaluated() -> list[dict[str, Any]] | None:
        (group,) = prometheus("rules", watched.prometheus)["groups"]
        return group["rules"] if all(rule["health"] != "unknown" for rule in group["rules"]) else None

    rules = wait_for("the evaluation of the alerts", evaluated, timeout_s=SCRAPED_S)
    assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(alert_names(), "ok")
    assert [r["name"] for r in rules if r["state"] == "firing" and r["labels"]["severity"] == "page"] == []


def test_a_grafana_of_rays_configuration_looks_where_the_page_says_to_copy_ours(watched: Watched) -> None:
    """docs/cluster.md names the folder; Grafana itself is in no package index, so its part ends here."""
    (said,) = re.findall(r"`/tmp/ray/(\S+/dashboards)/`", (ROOT / "docs/cluster.md").read_text())
    folder = watched.head.folder / "ray" / said
    provisioning = folder.parent / "provisioning/dashboards/default.yml"
    (provider,) = yaml.safe_load(provisioning.read_text())["providers"]
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).resolve() == folder.resolve()
    assert (folder / "default_grafana_dashboard.json").is_file()  # Ray's own lie there, too
    ours, rays = (
        json.loads(file.read_text())["uid"]
        for file in (ROOT / "cluster/monitoring/grafana_dashboard.json", folder / "default_grafana_dashboard.json")
    )
    assert ours != rays


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_dashboard_shows_jobs_and_actors_by_speaking_names(watched: Watched, tmp_path: Path) -> None:
    """Set DASHBOARD_SCREENSHOTS to a folder to keep what the browser saw."""
    pictures = Path(os.environ.get("DASHBOARD_SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    with browser(tmp_path) as page:
        log_in(page, watched.head)
        for name, wanted in PAGES.items():
            page.open(f"{watched.head.dashboard}/#/{name}")
            shown(page, f"the page {name}", *wanted)
            assert QUESTION not in page.text()
            page.shoot(pictures / f"{name}.png")
            assert (pictures / f"{name}.png").stat().st_size > 20_000


def shown(page: Page, what: str, *wanted: str) -> None:
    """Wait until a reader of the page sees every text of ``wanted``."""
    wait_for(what, lambda: all(text in page.text() for text in wanted), timeout_s=SHOWN_S, give_up=page.text)


def log_in(page: Page, head: Head) -> None:
    """Answer the question as a reader would."""
    page.open(head.dashboard)
    shown(page, "a question for the token", QUESTION)
    page.run("document.querySelector('[role=dialog] input').focus()")
    page.type((head.folder / "token").read_text())
    page.run(
        "[...document.querySelectorAll('[role=dialog] button')].find(one => /submit/i.test(one.innerText)).click()"
    )
    wait_for("the pages behind the question", lambda: QUESTION not in page.text(), timeout_s=SHOWN_S, give_up=page.text)


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


def alert_rules() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "cluster/monitoring/alerts.yml").read_text())["groups"][0]["rules"]


def alert_names() -> list[str]:
    return [rule["alert"] for rule in alert_rules()]


def alerts() -> list[str]:
    """Every number that an alert compares with its limit."""
    return [re.sub(r"\s[<>]=?\s[\d.]+$", "", rule["expr"]) for rule in alert_rules()]


def still_missing(expressions: list[str], port: int) -> list[str]:
    """Strike out what has numbers by now."""
    expressions[:] = [expression for expression in expressions if not query(expression, port)]
    return expressions


def query(expression: str, port: int) -> list[Any]:
    return prometheus("query?" + urllib.parse.urlencode({"query": expression}), port)["result"]


def prometheus(request: str, port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{request}", timeout=10) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return found["data"]
