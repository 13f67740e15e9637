"""The documented `ray job submit`, the smallest training there is, against a head on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.head import ROOT, Head, running_head
from tests.cluster.training import rows, train_command

pytestmark = pytest.mark.timeout(600)
JOB_S = 240.0
UPLOAD_LIMIT = 40 * 2**20
"""Bytes. The weights of the embedded world are the most of it."""
TINY = (
    "rollout.workers=1", "ppo.batch_size=2", "ppo.minibatch_size=4", "prompts.train_count=2",
    "evaluation.prompt_count=1", "run.film_strips=0",
)  # fmt: skip
JOIN_S = 120.0
JOIN = """
import sys
from addiffusion.errors import ClusterError
from launch.runtime.cluster import ray_joined

try:
    with ray_joined(sys.argv[1]):
        print("joined")
except ClusterError as error:
    print(error.message)
"""
LEFT_OUT = {".git", ".venv", "tests", "docs", "benchmarks", "runs"}


@pytest.fixture(scope="module")
def small_head() -> Iterator[Head]:
    with running_head(num_cpus=2, resources='{"rollout": 1, "reward": 1}') as head:
        yield head


def test_a_submitted_training_runs_from_a_small_upload_and_reports_what_it_did(small_head: Head) -> None:
    head = small_head
    head.submit("tiny", *train_command("runs/tiny", 1, *TINY), metadata={"purpose": "a test"})
    assert head.ended("tiny", timeout_s=JOB_S) == "SUCCEEDED"

    job = head.job("tiny")
    assert job["driver_exit_code"] == 0
    assert job["metadata"] == {"purpose": "a test"}
    assert job["entrypoint"].startswith("addiffusion train cluster.address=auto")
    assert job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "900"

    run = head.folder / "runs" / "tiny"
    assert [row["workers_up"] for row in rows(run)] == [1]
    assert json.loads((run / "result.json").read_text())
    assert "held-out prompts, same seeds in every row" in head.logs("tiny")

    uploaded = upload(head)
    assert {path.name for path in uploaded.iterdir()}.isdisjoint(LEFT_OUT)
    assert sum(path.stat().st_size for path in uploaded.rglob("*") if path.is_file()) < UPLOAD_LIMIT


@pytest.mark.cluster  # 20 s of waiting, which CI does without: tests/launch/runtime/test_cluster.py has the sentences
def test_a_node_without_the_clusters_token_is_told_so_in_one_sentence(small_head: Head) -> None:
    """Two that join at once, one without a token and one with another, which Ray takes 20 s to give up on."""
    (small_head.folder / "other").write_text("o" * 64)
    processes = [join(small_head, small_head.folder / name) for name in ("absent", "other")]
    absent, other = (process.communicate(timeout=JOIN_S) for process in processes)
    begin = f"the cluster at 127.0.0.1:{small_head.gcs_port} wants another token than this process has"
    file = small_head.folder
    fix = "copy ~/.ray/auth_token of its head here with mode 0600, or set RAY_AUTH_TOKEN_PATH."
    assert absent == (f"{begin} (there is none in {file / 'absent'}): {fix}\n", "")
    assert other == (f"{begin} (it lies in {file / 'other'}): {fix}\n", "")


def join(head: Head, token: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", JOIN, f"127.0.0.1:{head.gcs_port}"],
        cwd=ROOT,
        env=head.environment | {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def upload(head: Head) -> Path:
    """The one working directory that reached the node."""
    folders = (head.folder / "ray" / "session_latest" / "runtime_resources" / "working_dir_files").glob("_ray_pkg_*/")
    (found,) = folders
    return found
