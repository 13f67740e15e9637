"""A run small enough for tests: toy diffusion model, toy scorers, the real worker, learner and loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from addiffusion.config import Config
from addiffusion.policy import PolicyNetwork
from launch.runtime.components import Components, observation_width
from launch.training.preflight import Plan
from learner.algorithm_config import build_ppo_config
from learner.update import PolicyLearner
from rollout_workers.worker import Worker
from tests.fakes import ToyBackbone, ToyScoring, make_prompt

SMALL = {
    "rollout": {"slots": 2},
    "sampler": {"num_steps": 8, "warmup_steps": 2, "finish_steps": 2},
    "observation": {"timestep_width": 8},
    "policy": {"hidden": [8]},
    "ppo": {"iterations": 3, "batch_size": 4, "minibatch_size": 8, "epochs": 1},
    "checkpoint": {"every": 1},
    "evaluation": {"static_steps": 4},
    "run": {"film_strips": 0},
}


def toy_config(**sections: dict[str, object]) -> Config:
    """A configuration of seconds; ``sections`` are laid over it."""
    merged = {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in {*SMALL, *sections}}
    return Config.model_validate(merged)


def toy_plan(path: Path, config: Config) -> Plan:
    """A plan over toy prompts."""
    prompts = tuple(make_prompt(number) for number in range(9))
    return Plan(config=config, path=path, train_prompts=prompts[:6], test_prompts=prompts[6:])


@contextmanager
def toy_components(config: Config) -> Iterator[Components]:
    """All roles in this process around the toys."""
    scoring = ToyScoring()
    width = observation_width(config, scoring)
    worker = Worker(
        config,
        policy=PolicyNetwork(width, config.policy.hidden, actions=config.policy.actions),
        backbone=ToyBackbone,
        scoring=lambda: scoring,
    )
    learner = PolicyLearner(build_ppo_config(config, observation_width=width).build_learner())
    yield Components(rollouts=worker, scoring=scoring, learner=learner)
