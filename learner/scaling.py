"""Rollout workers for nodes that join the cluster while a run is under way."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from addiffusion.config import RolloutSection
from learner.losses import WorkerId
from learner.worker_plan import wanted_workers

PAUSE_S = 5.0
"""Between two looks at what the cluster offers."""


class Scaler:
    """Implements ``learner.worker_pool.NewWorkers``: a worker for every unit of ``resource`` that nodes offer.

    Workers asked for by ``rollout.workers`` are started in any case. Those without room wait for a node; Ray's
    autoscaler sees them and starts one. A worker whose node leaves is restarted by Ray wherever there is room.
    """

    def __init__(self, group: EnvRunnerGroup, rollout: RolloutSection, *, resource: str) -> None:
        self._group = group
        self._rollout = rollout
        self._resource = resource
        self._next_look = 0.0

    def __call__(self) -> dict[WorkerId, ActorHandle[Any]]:
        """The workers just started, by id. They have not answered yet."""
        if time.monotonic() < self._next_look:
            return {}
        self._next_look = time.monotonic() + PAUSE_S
        present = set(self._group._worker_manager.actors())  # a copy: RLlib hands out the mapping it adds to
        missing = wanted_workers(self._rollout, ray.cluster_resources().get(self._resource, 0.0)) - len(present)
        if missing > 0:
            self._group.add_workers(missing, validate=False)
        return {
            WorkerId(key): actor for key, actor in self._group._worker_manager.actors().items() if key not in present
        }
