"""Workers for nodes that join."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import ray
from ray.actor import ActorHandle
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

from addiffusion.config import RolloutSection
from learner.scaling import Scaler


class Group(EnvRunnerGroup):
    """What RLlib's group does about workers, with its own manager of actors; the actors do nothing."""

    def __init__(self) -> None:
        self._worker_manager = FaultTolerantActorManager()
        self.add_workers(1)

    def add_workers(self, num_workers: int, validate: bool = True) -> None:
        for _ in range(num_workers):
            number = len(self._worker_manager.actors()) + 1
            self._worker_manager.actors()[number] = create_autospec(ActorHandle, instance=True)


def test_every_unit_gets_a_worker_and_each_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    units = {"rollout": 1.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: units)
    monkeypatch.setattr("learner.scaling.PAUSE_S", 0.0)
    scaler = Scaler(Group(), RolloutSection(workers=1, max_workers=3), resource="rollout")
    assert scaler() == {}
    units["rollout"] = 2.0
    assert set(scaler()) == {2}
    assert scaler() == {}
    units["rollout"] = 8.0
    assert set(scaler()) == {3}, "no more than rollout.max_workers"
    units["rollout"] = 0.0
    assert scaler() == {}
