"""RLlib's PPO learner with its defects for complete episodes repaired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from math import isfinite
from typing import Any, cast

import torch
from jaxtyping import Int
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate, GeneralAdvantageEstimation
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.typing import ParamDict
from torch import Tensor

from addiffusion.errors import UpdateError
from addiffusion.policy import masked_like
from addiffusion.seeds import generator
from learner.connector import WEIGHTS, EpisodeAdvantages
from learner.loss import LossInputs, explained_variance, ppo_loss
from learner.module import policy_module

SCHEDULE_KEY = NUM_ENV_STEPS_SAMPLED_LIFETIME
"""Where RLlib's schedules look for their time, which is the iteration here."""


class EpisodePPOLearner(PPOTorchLearner):
    """One update on complete episodes is a pure function of (weights, optimizer state, episodes, iteration).

    The entropy schedule and the minibatch order follow the iteration handed to ``update(timesteps=)``, so a restored
    learner needs nothing but weights and optimizer state.
    """

    iteration: int = 0
    step_metrics: list[dict[str, float]]
    """One entry per gradient step of the update under way."""
    batch_metrics: dict[str, float]
    """Of the whole batch, before its first gradient step."""

    def build(self) -> None:
        """Build the learner with our advantage connector in place of RLlib's."""
        super().build()
        config: Any = self.config  # RLlib annotates its settings as optional; build_ppo_config sets them all
        pipeline = self._learner_connector
        assert pipeline is not None
        pipeline.remove(AddOneTsToEpisodesAndTruncate)
        pipeline.remove(GeneralAdvantageEstimation)
        own = config.learner_config_dict
        pipeline.append(
            EpisodeAdvantages(
                gamma_d=config.gamma,
                gae_lambda=config.lambda_,
                off_policy=own["algorithm"] == "appo",
                weighting=own["weighting"],
            )
        )

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Set everything that depends on the iteration."""
        super().before_gradient_based_update(timesteps=timesteps)
        self.iteration = int(timesteps[SCHEDULE_KEY])
        self.step_metrics = []
        entropy_coeff = self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].update(timestep=self.iteration)
        self.batch_metrics = {"entropy_coeff": float(entropy_coeff)}

    def _create_iterator_if_necessary(
        self,
        *,
        training_data: TrainingData,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> Iterator[MultiAgentBatch]:
        columns = cast("dict[str, torch.Tensor]", self._make_batch_if_necessary(training_data)[DEFAULT_MODULE_ID])
        row_count = len(columns[Columns.ACTIONS])
        self.batch_metrics["decisions_trained"] = float(row_count)
        self.batch_metrics["explained_variance"] = explained_variance(
            columns[Postprocessing.VALUE_TARGETS], columns[Columns.VF_PREDS]
        )
        for rows in minibatch_rows(
            row_count,
            epochs=num_epochs,
            minibatch_size=minibatch_size or row_count,
            generator=generator(self.config.learner_config_dict["seed"], "minibatches", self.iteration),
        ):
            share, weight = own_share(rows)
            picked = {name: column[share] for name, column in columns.items() if isinstance(column, torch.Tensor)}
            picked[WEIGHTS] = picked[WEIGHTS] * weight
            yield MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(picked)}, env_steps=len(rows))

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """The PPO loss of one minibatch.

        Args:
            module_id: RLlib's name of the module.
            config: RLlib's, of PPO.
            batch: columns (n, ...) of n decisions.
            fwd_out: outputs (n, ...) of the module.
        """
        loss = ppo_loss(
            LossInputs(
                logits=masked_like(fwd_out[Columns.ACTION_DIST_INPUTS], batch[Columns.ACTION_DIST_INPUTS]),
                values=policy_module(self.module[module_id]).compute_values(batch),
                actions=batch[Columns.ACTIONS],
                log_prob=batch[Columns.ACTION_LOGP],
                advantages=batch[Postprocessing.ADVANTAGES],
                value_targets=batch[Postprocessing.VALUE_TARGETS],
                weights=batch[WEIGHTS],
            ),
            clip=config.clip_param,
            value_coeff=config.vf_loss_coeff,
            entropy_coeff=self.batch_metrics["entropy_coeff"],
        )
        self.step_metrics.append({part.name: float(getattr(loss, part.name).detach()) for part in fields(loss)})
        return loss.total

    def postprocess_gradients(self, gradients_dict: ParamDict) -> ParamDict:
        """Leave gradients as they are: ``apply_gradients`` clips them where it needs their norm anyway."""
        return gradients_dict

    def apply_gradients(self, gradients_dict: ParamDict) -> None:  # noqa: ARG002 - they are in .grad
        """Clip to the global norm and step; the norm is the one check for values that are not finite.

        Raises:
            UpdateError: a gradient is NaN or infinite (RLlib would set it to zero and go on).
        """
        assert self.config.grad_clip is not None
        parameters = cast("list[torch.Tensor]", list(self._params.values()))
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.grad_clip))
        if not isfinite(norm):
            raise UpdateError(
                f"The policy update of iteration {self.iteration} has a gradient norm of {norm}: a reward or an "
                "observation of its episodes is not finite, or the learning rate (ppo.lr) is too high.",
                iteration=self.iteration,
            )
        self.step_metrics[-1]["grad_norm"] = norm
        self.get_optimizer(module_id=DEFAULT_MODULE_ID).step()


def own_share(rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The rows of a minibatch that this process takes, and the factor that makes the average over processes its mean.

    Without other learner processes: all of them, and 1.
    """
    if not torch.distributed.is_initialized():
        return rows, 1.0
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    share = rows[rank::world]
    return (share, world * len(share) / len(rows)) if len(share) else (rows[:1], 0.0)


def minibatch_rows(
    row_count: int, *, epochs: int, minibatch_size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " m"]]:
    """Row indices (m,) of each gradient step: in every epoch each row exactly once, in a fresh order.

    RLlib's cyclic iterator fills the last minibatch of an epoch from the next one and repeats the rows of a batch
    that is smaller than a minibatch; here the minibatches of an epoch differ by at most one row instead.

    Args:
        row_count: rows of the batch.
        epochs: how often each is trained on.
        minibatch_size: rows per step, about.
        generator: of the orders.
    """
    step_count = max(1, round(row_count / minibatch_size))
    for _ in range(epochs):
        yield from torch.randperm(row_count, generator=generator).tensor_split(step_count)
