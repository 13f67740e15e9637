"""What `addiffusion reward status` shows, from counters that are known."""

from __future__ import annotations

import json
import subprocess
import sys

import ray
from rich.console import Console
from typer.testing import CliRunner

from addiffusion.config import ScorersSection
from launch.cli.app import app
from launch.runtime.cluster import NAMESPACE
from launch.runtime.reward_status import ServiceStatus, tables, to_json
from reward_service.actor import get_or_create
from reward_service.stats import ServiceStats
from tests.reward_service.toy_scoring import load_slow_toy, make_request

STATUS = ServiceStatus(
    name="shared",
    replicas=(
        ServiceStats(
            image_count=80,
            batch_count=10,
            scoring_s=2.0,
            waited_s=0.5,
            hung_count=1,
            halved_count=2,
            scorer_s={"clip": 1.5, "aesthetic": 0.5},
            scorer_error_count={"image_reward": 3},
        ),
        ServiceStats(scorer_s={"clip": 2.0}),
    ),
)


def shown(*statuses: ServiceStatus) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        for table in tables(statuses):
            console.print(table)
    return " ".join(capture.get().replace("│", " ").split())


def test_replicas_and_scorers_have_a_row_each() -> None:
    text = shown(STATUS)
    assert "shared 1/2 80 40.0 8.0 50.0 0 0 0 1 2 0 0" in text
    assert "shared 2/2 0 0.0 0.0 0.0" in text
    assert "clip 3.5 88% 0" in text
    assert "image_reward 0.0 0% 3" in text


def test_nothing_running_is_said() -> None:
    assert "no reward service runs here" in shown()


def test_json_has_counters_and_derived_numbers() -> None:
    (service,) = json.loads(json.dumps(to_json([STATUS])))
    assert service["name"] == "shared"
    first = service["replicas"][0]
    assert (first["image_count"], first["mean_wait_ms"], first["busy_images_per_s"]) == (80, 50.0, 40.0)
    assert first["scorer_s"] == {"clip": 1.5, "aesthetic": 0.5}


def test_a_cluster_of_its_own_is_refused() -> None:
    result = CliRunner().invoke(app, ["reward", "status", "--address", "local"])
    assert result.exit_code == 2
    assert "address=local would start a cluster of its own" in " ".join(result.stderr.split())


def addiffusion(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from launch.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_a_running_service_is_shown_and_stopped_from_the_outside(ray_cluster: str) -> None:
    address = ray.get_runtime_context().gcs_address
    section = ScorersSection(batch_images=8, cpus=0.1)
    service = get_or_create(section, namespace=NAMESPACE, name="watched", detached=True, load=load_slow_toy)
    service.score(make_request(0, 5))
    shown = addiffusion("reward", "status", "--address", address, "--json")
    assert shown.returncode == 0, shown.stderr
    (status,) = [status for status in json.loads(shown.stdout) if status["name"] == "watched"]
    assert [replica["image_count"] for replica in status["replicas"]] == [5]
    assert addiffusion("reward", "stop", "watched", "--address", address).returncode == 0
    again = addiffusion("reward", "stop", "watched", "--address", address)
    assert again.returncode == 2
    assert "No reward service named 'watched'" in again.stderr
