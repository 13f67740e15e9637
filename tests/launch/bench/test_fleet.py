"""Simulated workers on a real Ray."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from launch.bench.fleet import FleetSetup, made_templates
from launch.bench.orders import TrainOrder
from launch.bench.train import bench_fleets, fleet_table
from tests.learner.toy import toy_config

PAUSE_S = 0.2
"""Of each episode: long beside what a busy driver does between sending tickets and waiting for them."""


def fleet_setup(**order: Any) -> FleetSetup:
    return FleetSetup(
        order=TrainOrder(iterations=1, tickets=4, **order),
        config=toy_config(epochs=1),
        templates=made_templates(40, 3),
        per_episode_s=PAUSE_S,
    )


def test_fleets_sleep_for_their_tickets_and_are_compared(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.bench.fleet._PROCESSES", 2)
    told = io.StringIO()
    result = bench_fleets(fleet_setup(fleets=(1, 12)), Console(file=told))
    one, twelve = result["fleets"]
    assert min(one["waited_s"], twelve["waited_s"]) >= 0.9 * 4 * PAUSE_S
    assert twelve["iteration_s"] < 12 * 4 * PAUSE_S  # all at the same time, though they share two processes
    assert (result["observation_width"], twelve["weights_mb"]) == (40, one["weights_mb"])
    assert twelve["episodes_mb"] == pytest.approx(12 * one["episodes_mb"])
    assert result["weak_scaling"] == one["iteration_s"] / twelve["iteration_s"]
    assert "simulating 12 workers, 0.8 s of rollouts" in told.getvalue()
    stream = io.StringIO()
    Console(file=stream, width=200).print(fleet_table(result))
    assert f"{twelve['update_s']:.2f}" in stream.getvalue()
