"""RLlib's PPO configuration from ours: every value RLlib would otherwise choose by itself is set here."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, cast

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner import EnvRunner

from addiffusion.actions import action_count
from addiffusion.config import Config, PpoSection
from learner.marwil_learner import EpisodeMarwilLearner
from learner.module import PolicyModule
from learner.ppo_learner import EpisodePPOLearner
from learner.worker_plan import WorkerPlan

OFFLINE = ("bc", "marwil")
"""Algorithms that learn from a trajectory bank."""


def build_ppo_config(
    config: Config,
    *,
    observation_width: int,
    runner_class: type[EnvRunner] | None = None,
    scoring: Callable[[], Any] | None = None,
    backbone: Callable[[], Any] | None = None,
    algorithm_class: type[PPO] | None = None,
) -> PPOConfig:
    """The RLlib configuration of a run.

    Args:
        config: the run's configuration.
        observation_width: p, the width of phi.
        runner_class: the rollout worker; None where only the learner is built (serial runs).
        scoring: makes a worker's ``Scoring``, called inside the worker; has to pickle.
        backbone: makes a worker's ``Backbone`` likewise; None loads what ``config.backbone`` names.
        algorithm_class: the algorithm ``build_algo`` makes.
    """
    space = gym.spaces.Box(-np.inf, np.inf, (observation_width,), np.float32)
    actions = gym.spaces.Discrete(action_count(config.policy.actions))
    model_config = {
        "hidden": list(config.policy.hidden),
        "prior": list(config.policy.prior),
        "doubts": bool(config.observation.previews) and "redraw" in config.policy.actions,
        "actions": list(config.policy.actions),
        "seed": config.run.seed,
    }
    built = PPOConfig(algo_class=algorithm_class)
    built.environment(
        env=None,
        observation_space=space,
        action_space=actions,
        env_config={"config": config, "scoring": scoring, "backbone": backbone},
    )
    built.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=PolicyModule, observation_space=space, action_space=actions, model_config=model_config
        )
    )
    _set_training(built, config.ppo, seed=config.run.seed)
    if runner_class is not None:
        _set_runners(built, config, runner_class)
    # RLlib's own seed would reset the global generators of this process; ours are all derived (addiffusion.seeds).
    built.debugging(seed=None, log_level="ERROR")
    built.reporting(min_time_s_per_iteration=None)
    return built


def with_workers(built: PPOConfig, plan: WorkerPlan) -> PPOConfig:
    """The same configuration with other rollout workers than ``rollout.workers`` anywhere."""
    built.env_runners(
        num_env_runners=plan.worker_count,
        custom_resources_per_env_runner=dict.fromkeys(plan.resources, 1.0),
    )
    return built


def entropy_schedule(section: PpoSection) -> Any:
    """The entropy coefficient by iteration, in RLlib's form: linear from the first to the last iteration."""
    if section.iterations <= 1:
        return section.entropy_start
    return [(0, section.entropy_start), (section.iterations - 1, section.entropy_end)]


def _set_training(built: PPOConfig, section: PpoSection, *, seed: int) -> None:
    offline = section.algorithm in OFFLINE
    built.learners(
        num_learners=section.learners,
        num_gpus_per_learner=section.gpus_per_learner,
        learner_class=EpisodeMarwilLearner if offline else EpisodePPOLearner,
        learner_config_dict={
            "seed": seed,
            "algorithm": section.algorithm,
            "weighting": section.weighting,
            "price_scale": section.price_scale,
        },
    )
    built.training(
        lr=section.lr,
        gamma=section.gamma_d,
        lambda_=1.0 if offline else section.gae_lambda,  # MARWIL weighs by what really came of a decision
        clip_param=section.clip,
        vf_clip_param=inf,  # the default clamps the squared error at 10 and with it the gradient of large errors
        vf_loss_coeff=section.value_coeff,
        entropy_coeff=entropy_schedule(section),
        use_kl_loss=False,
        grad_clip=section.max_grad_norm,
        grad_clip_by="global_norm",
        num_epochs=section.epochs,
        minibatch_size=section.minibatch_size,
        # Counts decisions in RLlib, and only has to be no smaller than a minibatch: tickets decide the batch.
        train_batch_size_per_learner=max(section.minibatch_size, section.batch_size),
    )


def _set_runners(built: PPOConfig, config: Config, runner_class: type[EnvRunner]) -> None:
    rollout = config.rollout
    built.env_runners(
        env_runner_cls=runner_class,
        num_env_runners=rollout.workers,
        num_envs_per_env_runner=1,
        num_cpus_per_env_runner=cast("int", rollout.cpus_per_worker),  # RLlib's annotation is narrower than Ray's
        num_gpus_per_env_runner=rollout.gpus_per_worker,
        batch_mode="complete_episodes",
        sample_timeout_s=None,  # the default of 60 s drops slow workers silently
        create_local_env_runner=True,
        # Weights travel with the tickets and there are no connector states: nothing for RLlib to synchronise.
        merge_env_runner_states=False,
        broadcast_env_runner_states=False,
    )
    built.fault_tolerance(
        restart_failed_env_runners=True,
        delay_between_env_runner_restarts_s=1.0,
        max_num_env_runner_restarts=1000,
    )
