"""The actors and the learner of a distributed run, owned by an RLlib algorithm."""

from __future__ import annotations

import tempfile
from typing import cast

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from addiffusion.config import Config
from learner.losses import WorkerId
from learner.ppo_learner import EpisodePPOLearner
from learner.rollouts import RayRollouts
from learner.scaling import Scaler
from learner.shared_learner import SharedLearner
from learner.state import Learner
from learner.update import PolicyLearner
from learner.worker_pool import NewWorkers


class AdaptivePPO(PPO):
    """Rollout workers and learner as RLlib builds them; ``learner.training.Training`` trains with them.

    RLlib's own ``train``, ``save`` and ``restore`` know neither tickets nor schedules and are not used.
    """

    rollouts: RayRollouts
    policy_learner: Learner

    def setup(self, config: AlgorithmConfig) -> None:
        """Start the rollout workers and build the learner (called by RLlib's constructor)."""
        super().setup(config)
        group = self.env_runner_group
        assert group is not None
        assert self.learner_group is not None
        actors = {WorkerId(key): actor for key, actor in group._worker_manager.actors().items()}
        self.rollouts = RayRollouts(actors, self.run_config, self._new_workers(config, group))
        if self.learner_group.is_local:
            self.policy_learner = PolicyLearner(cast("EpisodePPOLearner", self.learner_group._learner))
        else:
            self.policy_learner = SharedLearner(self.learner_group)

    def cleanup(self) -> None:
        """End all workers (called by RLlib's ``stop``, which would wait for those that have no node)."""
        self.rollouts.dismiss_absent()
        super().cleanup()

    def _new_workers(self, config: AlgorithmConfig, group: EnvRunnerGroup) -> NewWorkers:
        resources = list(cast("dict[str, float]", config.custom_resources_per_env_runner))
        return Scaler(group, self.run_config.rollout, resource=resources[0]) if resources else dict

    def _setup_logdir(self) -> None:
        """Outside of Tune, RLlib would make a folder in the user's home that nothing is ever written to."""
        if self._storage:
            super()._setup_logdir()
        else:
            self._logdir = tempfile.mkdtemp(prefix="addiffusion-")

    @property
    def run_config(self) -> Config:
        """The project's configuration, from which RLlib's was made."""
        assert self.config is not None
        return cast("Config", self.config.env_config["config"])
