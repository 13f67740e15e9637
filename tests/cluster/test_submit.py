"""The documented `ray job submit`, the smallest training there is, against a head on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.head import Head, running_head
from tests.cluster.training import rows, train_command

pytestmark = pytest.mark.timeout(600)
JOB_S = 240.0
UPLOAD_LIMIT = 40 * 2**20
"""Bytes. The weights of the embedded world are the most of it."""
TINY = (
    "rollout.workers=1", "ppo.batch_size=2", "ppo.minibatch_size=4", "prompts.train_count=2",
    "evaluation.prompt_count=1", "run.film_strips=0",
)  # fmt: skip
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


def upload(head: Head) -> Path:
    """The one working directory that reached the node."""
    folders = (head.folder / "ray" / "session_latest" / "runtime_resources" / "working_dir_files").glob("_ray_pkg_*/")
    (found,) = folders
    return found
