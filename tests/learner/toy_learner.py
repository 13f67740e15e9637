"""The real learner at the toy's size. Apart from ``toy``, because importing RLlib takes a worker many seconds."""

from __future__ import annotations

from addiffusion.config import Config
from learner.algorithm_config import build_ppo_config
from learner.update import PolicyLearner
from tests.learner.toy import WIDTH


def toy_learner(config: Config) -> PolicyLearner:
    return PolicyLearner(build_ppo_config(config, observation_width=WIDTH).build_learner())
