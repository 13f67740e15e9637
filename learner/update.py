"""A learner in this process: episodes in, weights and metrics out. Needs no running Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch import Tensor

from addiffusion.errors import CheckpointError, ContractError
from addiffusion.records import Episode
from addiffusion.threads import torch_threads
from learner.module import PolicyModule, policy_module
from learner.ppo_learner import SCHEDULE_KEY, EpisodePPOLearner
from learner.state import LearnerState


class PolicyLearner:
    """One local RLlib learner. Updates run on one torch thread: their sums are then the same everywhere."""

    def __init__(self, learner: EpisodePPOLearner) -> None:
        self._learner = learner

    def update(self, episodes: Sequence[Episode], *, iteration: int) -> dict[str, float]:
        """Train on complete episodes, in the order given.

        Returns:
            Means over gradient steps of ``policy_loss``, ``vf_loss``, ``entropy``, ``approx_kl``, ``clip_frac``,
            ``grad_norm`` and ``total_loss``; ``explained_variance`` of the values before the update;
            ``entropy_coeff``; ``decisions_trained``, the rows of the learner's batch.

        Raises:
            UpdateError: a gradient is not finite.
        """
        config = cast("PPOConfig", self._learner.config)
        assert config.num_epochs is not None
        price_scale = float(config.learner_config_dict["price_scale"])
        with torch_threads(1):
            self._learner.update(
                episodes=[to_single_agent_episode(episode, price_scale=price_scale) for episode in episodes],
                timesteps={SCHEDULE_KEY: iteration},
                num_epochs=config.num_epochs,
                minibatch_size=config.minibatch_size,
            )
        return {**_mean_steps(self._learner.step_metrics), **self._learner.batch_metrics}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the policy network's state for ``Rollouts.set_weights``."""
        state = self._module.policy.state_dict()
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}

    def state(self) -> LearnerState:
        """A copy of everything a checkpoint needs."""
        return LearnerState(
            policy=_copied(self._module.policy.state_dict()),
            value=_copied(self._module.value.state_dict()),
            optimizer=_copied(self._optimizer.state_dict()),
        )

    def load_state(self, state: LearnerState) -> None:
        """Go on from ``state``.

        Raises:
            CheckpointError: the state is that of networks of other widths.
        """
        try:
            self._module.policy.load_state_dict(state.policy)
            self._module.value.load_state_dict(state.value)
            self._optimizer.load_state_dict(_copied(state.optimizer))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                "The checkpoint's networks do not fit this configuration: policy.hidden and the observation must be "
                f"those of the run it comes from ({error})."
            ) from error

    @property
    def _module(self) -> PolicyModule:
        return policy_module(self._learner.module[DEFAULT_MODULE_ID])

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self._learner.get_optimizer(module_id=DEFAULT_MODULE_ID)


METRIC_NAMES = {"total": "total_loss", "policy": "policy_loss", "value": "vf_loss"}
"""Where a part of the loss is reported under another name than its own."""


def _mean_steps(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {METRIC_NAMES.get(name, name): float(np.mean([step[name] for step in steps])) for name in steps[0]}


def _copied(state: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: _copied_value(value) for key, value in state.items()}


def _copied_value(value: Any) -> Any:
    match value:
        case Tensor():
            return value.detach().cpu().clone()
        case Mapping():
            return _copied(cast("Mapping[Any, Any]", value))
        case list():
            return [_copied_value(item) for item in cast("list[Any]", value)]
        case _:
            return value


def to_single_agent_episode(episode: Episode, *, price_scale: float = 0.0) -> SingleAgentEpisode:
    """All decisions of a finished episode, terminated, with what the behaviour policy said at each.

    Its rewards are divided by 1 + price x ``price_scale`` (passes). The price is one number for the whole episode, and
    the policy sees it, so what is best stays best.

    ``len_lookback_buffer=0`` is essential: RLlib's default turns every given step into look-back, which trains on
    nothing.

    Raises:
        ContractError: the episode has no decision, so there is nothing to learn from it.
    """
    if not len(episode.actions):
        raise ContractError(
            f"Episode of ticket {episode.ticket.ticket_id} has no decision and can't be trained on: only tickets "
            "without a forced action belong in a training batch.",
            ticket_id=episode.ticket.ticket_id,
        )
    return SingleAgentEpisode(
        id_=str(episode.ticket.ticket_id),
        observations=[*episode.phi, episode.phi[-1]],  # RLlib wants what follows the last action; it is never read
        actions=list(episode.actions),
        rewards=[reward / (1.0 + episode.ticket.c_nfe * price_scale) for reward in episode.rewards],
        terminated=True,
        len_lookback_buffer=0,
        extra_model_outputs={
            Columns.ACTION_LOGP: list(episode.log_prob),
            Columns.ACTION_DIST_INPUTS: list(episode.logits),
        },
    ).to_numpy()
