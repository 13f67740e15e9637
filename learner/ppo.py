"""PPO as an RLlib algorithm: RLlib owns the actors and the learner, ``learner.training`` owns the training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS

from addiffusion.config import Config
from addiffusion.errors import ContractError
from learner.checkpoint import load_checkpoint, write_checkpoint
from learner.iteration import IterationReport
from learner.ppo_learner import EpisodePPOLearner
from learner.rollouts import RayRollouts
from learner.scaling import Recruiter
from learner.shared_learner import SharedLearner
from learner.state import Learner
from learner.tickets import TicketLedger
from learner.training import Training
from learner.update import PolicyLearner
from learner.worker_pool import Recruit


class AdaptivePPO(PPO):
    """Trains on exactly the tickets of each iteration; ``begin`` before the first ``train``.

    Between construction and ``begin``, ``rollouts`` already works: that is when references are rolled out.
    """

    rollouts: RayRollouts
    policy_learner: Learner
    training: Training | None = None
    report: IterationReport | None = None
    """Of the last iteration."""

    def setup(self, config: AlgorithmConfig) -> None:
        """Start the rollout workers and build the learner (called by RLlib's constructor)."""
        super().setup(config)
        group = self.env_runner_group
        assert group is not None
        assert self.learner_group is not None
        self.rollouts = RayRollouts(group._worker_manager.actors(), self.run_config, self._recruit(config, group))
        if self.learner_group.is_local:
            self.policy_learner = PolicyLearner(cast("EpisodePPOLearner", self.learner_group._learner))
        else:
            self.policy_learner = SharedLearner(self.learner_group)

    def cleanup(self) -> None:
        """End all workers (called by RLlib's ``stop``, which would wait for those that have no node)."""
        self.rollouts.dismiss_absent()
        super().cleanup()

    def _recruit(self, config: AlgorithmConfig, group: EnvRunnerGroup) -> Recruit:
        resources = list(cast("dict[str, float]", config.custom_resources_per_env_runner))
        return Recruiter(group, self.run_config.rollout, resource=resources[0]) if resources else dict

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

    def begin(self, ledger: TicketLedger) -> Training:
        """Train on the tickets of ``ledger`` from now on."""
        self.training = Training(self.run_config, ledger=ledger, rollouts=self.rollouts, learner=self.policy_learner)
        return self.training

    def training_step(self) -> None:
        """One iteration.

        Raises:
            ContractError: ``begin`` has not been called.
        """
        self.report = self._begun().step()
        for name, value in self.report.rollout.items():
            self.metrics.log_value((ENV_RUNNER_RESULTS, name), value, window=1)
        for name, value in self.report.update.items():
            self.metrics.log_value((LEARNER_RESULTS, name), value, window=1)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write our checkpoint, not RLlib's (which leaves schedules and workers out)."""
        write_checkpoint(Path(checkpoint_dir) / "state", self._begun().checkpoint())

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a checkpoint written by ``save_checkpoint``."""
        self._begun().restore(load_checkpoint(Path(checkpoint_dir) / "state"))

    def _begun(self) -> Training:
        if self.training is None:
            raise ContractError("AdaptivePPO needs begin(ledger) before it can train, save or restore.")
        return self.training
