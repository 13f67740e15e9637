"""The roles as Ray actors: rollout workers of an RLlib algorithm, the reward service, the learner in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayActorError, RayTaskError

from addiffusion.config import Config, SamplerSection
from launch.runtime.cluster import NAMESPACE
from launch.runtime.components import Components, observation_width
from launch.runtime.gpus import described, shared_out
from launch.runtime.logging_setup import muted_stderr, without_farewell
from launch.runtime.meters import replica_meters, run_meters, worker_meters
from launch.runtime.placement import find_placement
from learner.algorithm_config import build_ppo_config, with_workers
from learner.losses import WorkerId
from learner.ppo import AdaptivePPO
from learner.rollouts import RayRollouts
from learner.worker_plan import WorkerPlan
from learner.worker_pool import cause_of
from reward_service.actor import Start, get_or_create, stop
from reward_service.client import RemoteScoring
from rollout_workers.runner import DiffusionRunner


@contextmanager
def distributed_components(config: Config) -> Iterator[Components]:
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
    with ExitStack() as ends:
        if shared is None:
            ends.callback(stop, scoring)
        algorithm = _build(config, scoring, place.workers)
        ends.callback(_end, algorithm)
        lay_out = partial(_lay_out, algorithm.rollouts, config.cluster.start_timeout_s)
        lay_out(config.sampler, "sampler.num_steps")
        yield Components(
            rollouts=algorithm.rollouts,
            scoring=scoring,
            learner=algorithm.policy_learner,
            meters=run_meters,
            hosting=algorithm.rollouts.hosting,
            lay_out=lay_out,
            devices=described(config, place.gpus.total),
        )


def _end(algorithm: AdaptivePPO) -> None:
    with without_farewell():
        algorithm.stop()


def _build(config: Config, scoring: RemoteScoring, workers: WorkerPlan) -> AdaptivePPO:
    built = build_ppo_config(
        config,
        observation_width=observation_width(config, scoring),
        runner_class=DiffusionRunner,
        scoring=partial(_same, scoring),
        algorithm_class=AdaptivePPO,
    )
    built.environment(env_config={**built.env_config, "meters": worker_meters})
    with muted_stderr():
        algorithm = with_workers(built, workers).build_algo()
    assert isinstance(algorithm, AdaptivePPO)
    return algorithm


def _lay_out(rollouts: RayRollouts, timeout_s: float, sampler: SamplerSection, key: str) -> None:
    """Have the workers that are up load their model and lay a schedule out: what can't be used is refused early.

    Workers that are slow or lost are left to whoever hands out tickets.

    Raises:
        UsageError: the model can't be used as configured, or can't follow the schedule, whose steps ``key`` says.
    """
    actors = rollouts.pool.actor
    calls: dict[Any, WorkerId] = {
        actors(worker_id).lay_out.remote(sampler, key): worker_id for worker_id in rollouts.pool.up
    }
    ready = ray.wait(list(calls), num_returns=len(calls), timeout=timeout_s)[0] if calls else []
    for call in ready:
        try:
            ray.get(call, timeout=timeout_s)
        except RayTaskError as error:
            raise cause_of(error, calls[call]) from error
        except RayActorError:
            continue


def _same(scoring: RemoteScoring) -> RemoteScoring:
    return scoring
