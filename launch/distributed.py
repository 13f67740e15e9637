"""The roles as Ray actors: rollout workers of an RLlib algorithm, the reward service, the learner in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from addiffusion.config import Config
from launch.cluster import NAMESPACE
from launch.crew import Crew, observation_width
from launch.quiet import muted_stderr
from learner.algorithm_config import build_ppo_config
from learner.ppo import AdaptivePPO
from reward_service.actor import get_or_create, stop
from reward_service.client import RemoteScoring
from rollout_workers.runner import DiffusionRunner


@contextmanager
def distributed_crew(config: Config) -> Iterator[Crew]:
    """Start the actors of a run; all but a shared reward service end with the block. Ray must be running.

    Raises:
        ClusterError: an actor did not start in time.
        WeightsError: a scorer can't be loaded.
    """
    shared = config.scorers.service
    scoring = get_or_create(
        config.scorers,
        namespace=NAMESPACE,
        name=shared or f"run-{uuid4().hex[:8]}",
        detached=shared is not None,
        start_timeout_s=config.cluster.start_timeout_s,
    )
    algorithm = _build(config, scoring)
    try:
        yield Crew(rollouts=algorithm.rollouts, scoring=scoring, learner=algorithm.policy_learner)
    finally:
        algorithm.stop()
        if shared is None:
            stop(scoring)


def _build(config: Config, scoring: RemoteScoring) -> AdaptivePPO:
    built = build_ppo_config(
        config,
        observation_width=observation_width(config, scoring),
        runner_class=DiffusionRunner,
        scoring=partial(_same, scoring),
        algorithm_class=AdaptivePPO,
    )
    with muted_stderr():
        algorithm = built.build_algo()
    assert isinstance(algorithm, AdaptivePPO)
    return algorithm


def _same(scoring: RemoteScoring) -> RemoteScoring:
    return scoring
