"""A training run: iterations, checkpoints, resume. Knows nothing of Ray: the Ray algorithm and a serial run call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from addiffusion.config import Config
from addiffusion.errors import CheckpointError
from addiffusion.rollouts import Rollouts
from learner.batch import Batch, collect_batch
from learner.carry_over import CarryOver
from learner.checkpoint import Checkpoint, config_digest, is_of, save_checkpoint
from learner.curriculum import curriculum_stages
from learner.iteration import IterationReport, run_iteration
from learner.state import Learner
from learner.tickets import PoolEntry, TicketLedger


def build_ledger(config: Config, pool: Sequence[PoolEntry]) -> TicketLedger:
    """The ledger of a run over its training pool."""
    return TicketLedger(
        pool,
        run_seed=config.run.seed,
        batch_size=config.ppo.batch_size,
        prices=config.reward.prices,
        max_reissues=config.rollout.max_reissues,
        keep_images=config.run.record_episodes,
        stages=curriculum_stages(config.curriculum),
    )


class Training:
    """Learner, ledger and rollouts of one run. Between two calls it is always between two iterations."""

    def __init__(self, config: Config, *, ledger: TicketLedger, rollouts: Rollouts, learner: Learner) -> None:
        """A training from the ledger's next iteration on.

        Args:
            config: the run's.
            ledger: of its tickets.
            rollouts: get the learner's weights at once.
            learner: what is trained.
        """
        self._config = config
        self._ledger = ledger
        self._rollouts = rollouts
        self._learner = learner
        self._carry_over: CarryOver | None = None
        self.share_weights()

    @property
    def iteration(self) -> int:
        """The next iteration: as many have been trained."""
        return self._ledger.state.iteration

    @property
    def finished(self) -> bool:
        """Whether all of ``ppo.iterations`` have been trained."""
        return self.iteration >= self._config.ppo.iterations

    def share_weights(self) -> None:
        """Give the workers the learner's weights, which somebody has replaced."""
        self._rollouts.set_weights(self._learner.weights(), self.iteration)

    def step(self) -> IterationReport:
        """Train one iteration; see ``learner.iteration.run_iteration`` for what may be raised."""
        return run_iteration(
            self.iteration,
            collect=self._collect,
            ledger=self._ledger,
            rollouts=self._rollouts,
            learner=self._learner,
        )

    def _collect(self, iteration: int) -> Batch:
        if self._config.ppo.collection == "synchronous":
            return collect_batch(iteration, ledger=self._ledger, rollouts=self._rollouts)
        if self._carry_over is None:
            self._carry_over = CarryOver(self._config, ledger=self._ledger, rollouts=self._rollouts)
        return self._carry_over.collect(iteration)

    def due(self) -> bool:
        """Whether the state after the last iteration is to be saved: every ``checkpoint.every``, and at the end."""
        return self.finished or self.iteration % self._config.checkpoint.every == 0

    def save(self, run_dir: Path, *, score: float | None = None) -> Path:
        """Write a checkpoint into the run's folder and return its folder; the one of the highest score is kept."""
        return save_checkpoint(run_dir, self.checkpoint(score), keep=self._config.checkpoint.keep)

    def checkpoint(self, score: float | None = None) -> Checkpoint:
        """The present state."""
        return Checkpoint(
            learner=self._learner.state(),
            ledger=self._ledger.state,
            config_digest=config_digest(self._config),
            score=score,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint`` exactly as the run it was taken from would have.

        Raises:
            CheckpointError: it belongs to another configuration.
        """
        if not is_of(checkpoint, self._config):
            raise CheckpointError(
                "The checkpoint belongs to another configuration: run.seed, the model, the scorers and the sections "
                "sampler, refine, observation, reward, policy, ppo and prompts must be those of the run it comes from."
            )
        self._learner.load_state(checkpoint.learner)
        self._ledger.restore(checkpoint.ledger)
        self._carry_over = None  # what was under way belongs to another run
        self.share_weights()
