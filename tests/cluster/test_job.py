"""`ray job submit` against a head on this machine: uploads, logs, exit codes, stop and resume."""

from __future__ import annotations

import pytest

from tests.cluster.head import Head
from tests.cluster.training import rows, train_command
from tests.cluster.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
JOB_S = 240.0
ENDLESS = 100_000
LONG = train_command("runs/long", ENDLESS)


def iterations_reached(head: Head, job_id: str, count: int) -> None:
    def look() -> bool:
        head.check_running(job_id)
        return len(rows(head.folder / "runs" / "long")) >= count

    wait_for(f"iteration {count} of {job_id}", look, timeout_s=JOB_S, give_up=lambda: head.logs(job_id)[-3000:])


def test_a_stopped_job_saves_and_the_same_command_goes_on(head: Head) -> None:
    head.submit("long-1", *LONG)
    head.submit("wrong", "addiffusion", "train", "ppo.lr=fast")
    iterations_reached(head, "long-1", 2)
    head.ray("job", "stop", "--address", head.dashboard, "long-1")
    assert head.ended("long-1", timeout_s=JOB_S) == "STOPPED"
    log = head.logs("long-1")
    assert "full-length images of the training prompts: 4" in log
    assert "go on with" in log
    done = len(rows(head.folder / "runs" / "long"))
    saved = sorted(path.name for path in (head.folder / "runs" / "long" / "checkpoints").iterdir())
    assert saved[-1] == f"iteration-{done:06d}"

    assert head.ended("wrong", timeout_s=JOB_S) == "FAILED"
    wrong = head.job("wrong")
    assert wrong["driver_exit_code"] == 2
    assert "ppo.lr" in head.logs("wrong")

    head.submit("long-2", *LONG)
    iterations_reached(head, "long-2", done + 1)
    assert "full-length images" not in head.logs("long-2")
    assert [row["iteration"] for row in rows(head.folder / "runs" / "long")][: done + 1] == list(range(1, done + 2))
    head.ray("job", "stop", "--address", head.dashboard, "long-2")
    assert head.ended("long-2", timeout_s=JOB_S) == "STOPPED"


def test_a_finished_job_succeeds_with_its_table_in_the_log(head: Head) -> None:
    head.submit("short", *train_command("runs/short", 1))
    assert head.ended("short", timeout_s=JOB_S) == "SUCCEEDED"
    assert "held-out prompts, same seeds in every row" in head.logs("short")
    assert (head.folder / "runs" / "short" / "result.json").is_file()
