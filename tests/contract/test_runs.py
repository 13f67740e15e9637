"""Promises 1, 3 and 4: two workers, reward service and learner on Ray, small, against the same run in one process.

The Ray run loses a worker in its second iteration, and its reward service in the third; another one loses its driver
and is resumed. Neither that nor distribution may change a single bit.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from addiffusion.checkpoint_files import latest_checkpoint
from addiffusion.config import Config, SamplerSection
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import ConfigError
from addiffusion.prompts import load_prompts
from addiffusion.records import Episode, Ticket
from addiffusion.rollouts import Collected, Rollouts
from launch.runtime.components import Components
from launch.runtime.serial import serial_components
from launch.training.preflight import STATIC_STEPS, Plan
from launch.training.train import Outcome, run
from learner.checkpoint import load_checkpoint

ITERATIONS, BATCH = 3, 6
REFERENCE_CALLS = 2
"""Four training pairs, one for each slot of the one worker that ``Recording`` lets see."""
INFORMATIVE = {"seconds"}
"""Fields of an episode that are measured, not computed."""


def small_config() -> Config:
    return Config.model_validate(
        {
            "rollout": {"slots": 2, "workers": 2},
            "sampler": {"num_steps": 6, "finish_steps": 2},
            "ppo": {"iterations": ITERATIONS, "batch_size": BATCH, "minibatch_size": 16, "epochs": 2},
            "policy": {"hidden": [32]},
            "scorers": {"batch_images": 4},
            "prompts": {"train_count": 4},
            "evaluation": {"prompt_count": 3, "static_steps": 4},
            "run": {"film_strips": 1},
        }
    )


@dataclass(slots=True)
class Recording:
    """Rollouts that keep every episode, and run ``before`` ahead of each call but those for failed tickets."""

    rollouts: Rollouts
    before: Callable[[int], None]
    calls: list[tuple[Episode, ...]]
    """A call that only hands failed tickets out again counts as part of the one before."""
    failed: set[int] = field(default_factory=set[int])

    def set_weights(self, weights: object, version: int) -> None:
        self.rollouts.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        again = bool(self.failed) and {ticket.ticket_id for ticket in tickets} <= self.failed
        if not again:
            self.before(len(self.calls))
        collected = self.rollouts.collect(tickets, sampler=sampler)
        earlier = self.calls.pop() if again else ()
        episodes = (*earlier, *collected.episodes)
        self.calls.append(tuple(sorted(episodes, key=lambda episode: episode.ticket.ticket_id)))
        self.failed = {failure.ticket.ticket_id for failure in collected.failed}
        return collected

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self.rollouts.advance(tickets)


@dataclass(frozen=True, slots=True)
class Finished:
    outcome: Outcome
    calls: list[tuple[Episode, ...]]
    """Episodes of each collected batch: references, iterations, then the held-out arms."""
    weights: dict[str, torch.Tensor]
    path: Path
    refusal: str = ""
    """What a schedule that the workers can't lay out is refused with."""


def train(
    path: Path,
    components: Callable[[Config], AbstractContextManager[Components]],
    before: Callable[[Components, int], None],
) -> Finished:
    config, calls = small_config(), list[tuple[Episode, ...]]()

    @contextmanager
    def recorded(config: Config) -> Iterator[Components]:
        with components(config) as real:
            rollouts = Recording(real.rollouts, lambda number: before(real, number), calls)
            yield Components(rollouts=rollouts, scoring=real.scoring, learner=real.learner)

    plan = Plan(
        config=config,
        path=path,
        train_prompts=load_prompts(config.prompts, split="train", count=4, seed=0),
        test_prompts=load_prompts(config.prompts, split="test", count=3, seed=0),
    )
    outcome = run(plan, console=Console(file=io.StringIO()), roles=recorded)
    return Finished(outcome, calls, load_checkpoint(latest_checkpoint(path)).learner.policy, path)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return train(tmp_path_factory.mktemp("serial") / "run", serial_components, lambda components, number: None)


@pytest.fixture(scope="module")
def distributed(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    import ray  # noqa: PLC0415 - after the fixture has set its environment

    from launch.runtime.distributed import distributed_components  # noqa: PLC0415
    from learner.rollouts import RayRollouts  # noqa: PLC0415
    from reward_service.actor import RayReplicas  # noqa: PLC0415
    from reward_service.client import RemoteScoring  # noqa: PLC0415

    def kill_somebody(components: Components, number: int) -> None:
        assert isinstance(components.rollouts, RayRollouts)
        assert isinstance(components.scoring, RemoteScoring)
        assert isinstance(components.scoring.replicas, RayReplicas)
        if number == REFERENCE_CALLS + 1:  # the second iteration
            ray.kill(components.rollouts.pool.actor(1), no_restart=False)
        (service,) = components.scoring.replicas.actors
        service_pids.append(ray.get(service.facts.remote(), timeout=120).pid)
        if number == REFERENCE_CALLS + 2:
            threading.Timer(0.2, os.kill, (service_pids[-1], signal.SIGKILL)).start()

    def before(components: Components, number: int) -> None:
        if number == 0:
            with pytest.raises(ConfigError) as caught:
                components.lay_out(SamplerSection(num_steps=5000), STATIC_STEPS)
            refusals.append(caught.value.message)
        kill_somebody(components, number)

    service_pids, refusals = list[int](), list[str]()
    finished = train(tmp_path_factory.mktemp("ray") / "run", distributed_components, before)
    assert len(set(service_pids)) == 2, "the reward service was killed and came back, once"
    return replace(finished, refusal=refusals[0])


DRIVER = "from launch.cli.app import main; main()"


def kill_after_the_first_checkpoint(arguments: list[str], path: Path) -> None:
    """A driver in a process of its own, killed by SIGKILL as soon as there is something to resume."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while not list((path / "checkpoints").glob("iteration-*")):
            assert driver.poll() is None, "the driver ended by itself"
            assert time.monotonic() < deadline, "no checkpoint in time"
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait(timeout=60)


def assert_same(found: Episode, expected: Episode) -> None:
    for column in fields(Episode):
        if column.name in {*INFORMATIVE, "ticket", "frames"}:
            continue
        np.testing.assert_array_equal(getattr(found, column.name), getattr(expected, column.name), err_msg=column.name)
    assert (found.ticket.ticket_id, found.ticket.seed) == (expected.ticket.ticket_id, expected.ticket.seed)


def test_1_distribution_changes_nothing(serial: Finished, distributed: Finished) -> None:
    """The serial run and the Ray run give the same episodes and the same weights, bit for bit on a CPU."""
    # references, training, three arms of the comparison, training pairs once more
    assert len(distributed.calls) == len(serial.calls) == REFERENCE_CALLS + ITERATIONS + 3 + 1
    for found, expected in zip(distributed.calls, serial.calls, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    assert serial.weights.keys() == distributed.weights.keys()
    assert [name for name in serial.weights if not torch.equal(serial.weights[name], distributed.weights[name])] == []
    results = [finished.outcome.result for finished in (serial, distributed)]
    assert results[0] is not None
    assert results[1] is not None
    known = ("mean_nfe", "scene", "scene_full", "clip", "clip_full", "actions", "episodes_dropped")
    for name in (*known, "return_training", "return_held_out"):
        assert results[0][name] == results[1][name], name
    # Workers refuse as one process does (tests/launch/training/test_preflight.py).
    assert distributed.refusal.startswith("evaluation.static_steps is 5000, but the model's scheduler knows only")


def test_3_losses_cost_time_only(distributed: Finished) -> None:
    """A killed rollout worker or reward service costs time only: its tickets and requests are handed out again, and
    every update trains exactly the episodes it was meant to.
    """
    iterations = distributed.calls[REFERENCE_CALLS : REFERENCE_CALLS + ITERATIONS]
    ids = [[episode.ticket.ticket_id for episode in episodes] for episodes in iterations]
    assert ids == [list(range(BATCH * number, BATCH * (number + 1))) for number in range(ITERATIONS)]
    assert [episodes[0].weight_version for episodes in iterations] == [0, 1, 2]


def test_4_a_killed_driver_is_resumed_as_if_nothing_had_been(
    serial: Finished, ray_cluster: str, tmp_path: Path
) -> None:
    """`resume=RUN` goes on bit for bit where the last checkpoint stood."""
    import ray  # noqa: PLC0415 - after the fixture has set its environment

    from launch.runtime.distributed import distributed_components  # noqa: PLC0415

    config = small_config()
    config = config.model_copy(
        update={
            "checkpoint": config.checkpoint.model_copy(update={"every": 1}),
            # One is as good as two, which the other run has: starting them is most of what this test waits for.
            "rollout": config.rollout.model_copy(update={"workers": 1}),
        }
    )
    path, file = tmp_path / "run", tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    address = ray.get_runtime_context().gcs_address
    kill_after_the_first_checkpoint(
        ["train", "--config", str(file), f"run.dir={path}", f"cluster.address={address}"], path
    )
    checkpoint = load_checkpoint(latest_checkpoint(path))
    assert 1 <= checkpoint.iteration < ITERATIONS

    plan = Plan(
        config=config,
        path=path,
        train_prompts=load_prompts(config.prompts, split="train", count=4, seed=0),
        test_prompts=load_prompts(config.prompts, split="test", count=3, seed=0),
        checkpoint=checkpoint,
    )
    outcome = run(plan, console=Console(file=io.StringIO()), roles=distributed_components)
    final = load_checkpoint(latest_checkpoint(path))
    assert final.ledger.trained_count == BATCH * ITERATIONS
    assert all(torch.equal(final.learner.policy[name], serial.weights[name]) for name in serial.weights)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert {row["episodes_dropped"] for row in rows} == {row["audit_length_gap"] for row in rows} == {0}
    assert outcome.result is not None
    assert serial.outcome.result is not None
    assert outcome.result["mean_nfe"] == serial.outcome.result["mean_nfe"]
