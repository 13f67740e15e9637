"""The serial twin: the very components of a distributed run, in one process and without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

from addiffusion.backbones import load_backbone
from addiffusion.config import Config
from addiffusion.policy import PolicyNetwork
from addiffusion.scorers.families import load_scoring
from addiffusion.threads import torch_threads
from launch.runtime.components import Components, observation_width
from learner.algorithm_config import build_ppo_config
from learner.ppo_learner import EpisodePPOLearner
from learner.update import PolicyLearner
from rollout_workers.worker import Worker


@contextmanager
def serial_components(config: Config) -> Iterator[Components]:
    """One worker, the scorers and the learner in this process, all on one torch thread.

    One thread is what the actors of a distributed run have; sums are then the same to the last bit.
    """
    with torch_threads(1):
        scoring = load_scoring(config.scorers)
        width = observation_width(config, scoring)
        worker = Worker(
            config,
            policy=PolicyNetwork(width, config.policy.hidden, actions=config.policy.actions),
            backbone=partial(load_backbone, config.backbone),
            scoring=lambda: scoring,
        )
        worker.collect(())  # loads the model: a run that can't be drawn for is refused before it has a folder
        built = build_ppo_config(config, observation_width=width)
        yield Components(
            rollouts=worker,
            scoring=scoring,
            learner=PolicyLearner(cast("EpisodePPOLearner", built.build_learner())),
        )
