"""What an iteration costs beside its rollouts. The real measurement takes minutes; here are its parts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from addiffusion.errors import ConfigError
from launch.bench.orders import TrainOrder
from launch.bench.train import PARTS, TrainSetup, simulated_iteration_s, table_of, train_setup
from tests.learner.toy import WIDTH, toy_config, toy_episode, toy_ticket

PAUSE_S = 0.05
TEMPLATES = [
    toy_episode(toy_ticket(number), phi=np.zeros((3, WIDTH), np.float32), actions=[0, 0, 1], rewards=[0.0, 0.0, 1.0])
    for number in range(3)
]


def test_simulated_workers_sleep_for_their_tickets_and_give_each_an_episode(ray_cluster: str) -> None:
    setup = TrainSetup(order=TrainOrder(iterations=2, tickets=4), config=toy_config(epochs=1))
    told = io.StringIO()
    seconds = simulated_iteration_s(setup, TEMPLATES, PAUSE_S, 2, Console(file=told))
    assert seconds >= 4 * PAUSE_S  # two workers with four tickets each sleep at the same time
    assert "simulating 2 workers, 0.2 s of rollouts" in told.getvalue()


def test_a_serial_run_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave cluster\.mode=ray"):
        train_setup(TrainOrder(), [], ["cluster.mode=serial"])


def test_the_table_says_that_workers_are_simulated() -> None:
    result = {"wall_s": 20.0, "iterations": 2, "learner_share": 0.04, "weak_scaling_by_workers": {"1": 1.0, "8": 0.95}}
    stream = io.StringIO()
    Console(file=stream, width=100).print(table_of(result | {f"{part}_share": 0.01 for part in PARTS}))
    text = stream.getvalue()
    assert "10.00 s" in text
    assert "4.0 %" in text
    assert "8 simulated workers" in text
    assert "0.950" in text
