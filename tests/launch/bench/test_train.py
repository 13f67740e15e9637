"""What an iteration costs beside its rollouts. The real measurement takes minutes; here are its parts."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import ray
from rich.console import Console

from addiffusion.errors import ConfigError
from launch.bench.fleet import made_templates, unit_sizes
from launch.bench.orders import TrainOrder
from launch.bench.simulated import SimulatedWorkers
from launch.bench.train import PARTS, table_of, train_setup
from learner.update import to_single_agent_episode
from tests.learner.toy import WIDTH, toy_episode, toy_ticket

PAUSE_S = 0.05
TEMPLATES = [
    toy_episode(toy_ticket(number), phi=np.zeros((3, WIDTH), np.float32), actions=[0, 0, 1], rewards=[0.0, 0.0, 1.0])
    for number in range(3)
]


def test_a_simulated_worker_does_its_calls_one_after_the_other_and_fetches_weights_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[object] = []
    monkeypatch.setattr(ray, "get", lambda one, **_: fetched.append(one))
    workers = SimulatedWorkers(TEMPLATES, seconds_per_episode=PAUSE_S, stretch=2)
    tickets = [toy_ticket(number) for number in range(3)]
    call: Any = partial(workers.work, weights=cast("Any", ["new"]), weight_version=1)
    started = time.monotonic()
    with ThreadPoolExecutor() as threads:
        answers = [threads.submit(call, given, session=own) for given, own in ((tickets, 7), ((), 7), (tickets, 8))]
        counts = [len(answer.result().episodes) for answer in answers]
    assert sorted(counts) == [1, 2, 2]
    assert time.monotonic() - started >= 3 * PAUSE_S
    assert fetched == ["new", "new"]


def test_a_call_that_comes_late_does_not_bring_older_weights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls wait for one lock, so either may be first; the later one's tickets never meet older weights."""
    monkeypatch.setattr(ray, "get", lambda one, **_: one)
    workers = SimulatedWorkers(TEMPLATES, seconds_per_episode=0.0, stretch=2)
    tickets = [toy_ticket(number) for number in range(4)]
    call: Any = partial(workers.work, session=7, weights=cast("Any", ["some"]))
    answers = [call(tickets[:2], weight_version=2), call(tickets[2:], weight_version=1)]
    assert [one.weight_version for answer in answers for one in answer.episodes] == [2, 2, 2, 2]


def test_made_episodes_have_the_asked_sizes() -> None:
    templates = made_templates(40, 10)
    assert np.mean([len(episode.actions) for episode in templates]) == pytest.approx(10)
    assert {episode.phi.shape[1] for episode in templates} == {40}
    assert all(len(to_single_agent_episode(episode)) == len(episode.actions) for episode in templates)
    assert unit_sizes(templates)["episode with an image of 512 px"] > 512 * 512 * 3 / 1e3


def test_a_serial_run_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave cluster\.mode=ray"):
        train_setup(TrainOrder(), [], ["cluster.mode=serial"])


def test_the_table_says_that_workers_are_simulated() -> None:
    result = {"wall_s": 20.0, "iterations": 2, "learner_share": 0.04, "weak_scaling_by_workers": {"1": 1.0, "8": 0.95}}
    result["unit_kb"] = {"ticket": 0.4}
    stream = io.StringIO()
    Console(file=stream, width=100).print(table_of(result | {f"{part}_share": 0.01 for part in PARTS}))
    text = stream.getvalue()
    assert "10.00 s" in text
    assert "4.0 %" in text
    assert "8 simulated workers" in text
    assert "0.950" in text
