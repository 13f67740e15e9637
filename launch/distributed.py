"""The roles as Ray actors: rollout workers of an RLlib algorithm, the reward service, the learner in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from addiffusion.config import Config
from launch.cluster import NAMESPACE
from launch.crew import Crew, observation_width
from launch.gpus import described, shared_out
from launch.meters import replica_meters, run_meters, worker_meters
from launch.placement import find_placement
from launch.quiet import muted_stderr, without_farewell
from learner.algorithm_config import Staffing, build_ppo_config, staff
from learner.ppo import AdaptivePPO
from reward_service.actor import Start, get_or_create, stop
from reward_service.client import RemoteScoring
from rollout_workers.runner import DiffusionRunner


@contextmanager
def distributed_crew(config: Config) -> Iterator[Crew]:
    """Start the actors of a run; all but a shared reward service end with the block. Ray must be running.

    Raises:
        ClusterError: an actor did not start in time.
        WeightsError: a scorer can't be loaded.
    """
    shared, place = config.scorers.service, find_placement(config)
    config = shared_out(config, place.gpus, where="the cluster")
    scoring = get_or_create(
        config.scorers,
        namespace=NAMESPACE,
        name=shared or f"run-{uuid4().hex[:8]}",
        detached=shared is not None,
        start=Start(timeout_s=config.cluster.start_timeout_s, resources=place.reward_resources, meters=replica_meters),
    )
    algorithm = _build(config, scoring, place.staffing)
    try:
        yield Crew(
            rollouts=algorithm.rollouts,
            scoring=scoring,
            learner=algorithm.policy_learner,
            meters=run_meters,
            hosting=algorithm.rollouts.hosting,
            posts=described(config, place.gpus.total),
        )
    finally:
        with without_farewell():
            algorithm.stop()
        if shared is None:
            stop(scoring)


def _build(config: Config, scoring: RemoteScoring, staffing: Staffing) -> AdaptivePPO:
    built = build_ppo_config(
        config,
        observation_width=observation_width(config, scoring),
        runner_class=DiffusionRunner,
        scoring=partial(_same, scoring),
        algorithm_class=AdaptivePPO,
    )
    built.environment(env_config={**built.env_config, "meters": worker_meters})
    with muted_stderr():
        algorithm = staff(built, staffing).build_algo()
    assert isinstance(algorithm, AdaptivePPO)
    return algorithm


def _same(scoring: RemoteScoring) -> RemoteScoring:
    return scoring
