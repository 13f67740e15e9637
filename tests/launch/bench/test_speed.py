"""What `bench speed` asks for and measures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.errors import UsageError
from launch.bench.orders import SpeedOrder
from launch.bench.speed import bench_speed, table_of, to_json
from tests.launch.training.toy_policy import toy_policy

QUIET = Console(file=io.StringIO())


def test_the_speeds_that_images_get_are_told_beside_those_that_were_asked() -> None:
    rows = bench_speed(SpeedOrder(policy="shipped-latent", limit=12, speeds=(1.0, 1000.0), steps=(20,)), QUIET)
    slow, fast = rows
    assert [(row.steps, row.asked) for row in rows] == [(20, 1.0), (20, 1000.0)]
    assert 1 < slow.got < fast.got < 10, "faster than anything measured is the fastest that was"
    assert fast.off < -0.9
    assert slow.share.low <= 1 / slow.got <= slow.share.high
    assert table_of(rows).row_count == 2
    assert to_json(rows)[0]["off"] == pytest.approx(slow.got - 1)


def test_a_policy_whose_costs_nobody_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no measured costs: write one by `addiffusion export`"):
        bench_speed(SpeedOrder(policy=str(toy_policy(tmp_path / "policy"))), QUIET)
