"""A node that joins while a training runs gets a rollout worker; one that leaves costs the run nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.head import Head, joined_node, running_head
from tests.cluster.training import rows, train_command
from tests.cluster.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
JOB_S = 150.0
RUN = "runs/elastic"


def row_where(head: Head, what: str, **wanted: float) -> dict[str, Any]:
    """The first iteration from now on that has the numbers ``wanted``."""
    seen = len(rows(head.folder / RUN))

    def look() -> dict[str, Any] | None:
        head.check_running("elastic")
        fresh = rows(head.folder / RUN)[seen:]
        return next((row for row in fresh if all(row[key] == value for key, value in wanted.items())), None)

    return wait_for(what, look, timeout_s=JOB_S, give_up=lambda: head.logs("elastic")[-3000:])


def test_a_node_joins_and_leaves_while_a_training_runs() -> None:
    with running_head(num_cpus=3, resources=json.dumps({"rollout": 1, "reward": 1})) as head:
        head.submit("elastic", *train_command(RUN, 100_000))
        row_where(head, "an iteration of one worker", workers_up=1)
        with joined_node(head, num_cpus=1, resources=json.dumps({"rollout": 1})):
            row_where(head, "an iteration of two workers", workers_up=2)
        left = row_where(head, "an iteration without the node", workers_up=1, workers_lost=1)
        assert left["episodes_dropped"] == 0
        head.ray("job", "stop", "--address", head.dashboard, "elastic")
        assert head.ended("elastic", timeout_s=JOB_S) == "STOPPED"
        iterations = [row["iteration"] for row in rows(head.folder / RUN)]
        assert iterations == list(range(1, len(iterations) + 1))
