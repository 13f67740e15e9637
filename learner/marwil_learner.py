"""Offline learning: RLlib's own BC and MARWIL losses on the project's complete episodes."""

from __future__ import annotations

from typing import Any, cast

import torch
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from addiffusion.errors import UpdateError
from learner.ppo_learner import EpisodePPOLearner

MARWIL_BETA = 1.0
"""How sharply MARWIL prefers decisions that turned out better than expected (arXiv:1806.00589 Eq. 4)."""
NORM_START, NORM_RATE = 1.0, 0.01
"""Where the running mean square of advantages starts, and how fast it moves: RLlib's 100 and 1e-8 are for returns of
hundreds, and make every weight 1 where returns are of order one."""


class EpisodeMarwilLearner(EpisodePPOLearner):
    """The batches and the optimizer step of ``EpisodePPOLearner`` under the loss of RLlib's ``MARWILTorchLearner``.

    With ``algorithm: bc`` beta is 0: plain cross-entropy on the decisions of the episodes. RLlib's own way to these
    learners reads recorded episodes through Ray Data; here they are the same records that everything else trains on.
    """

    offline: MARWILConfig
    moving_avg_sqd_adv_norms_per_module: dict[str, torch.Tensor]

    def build(self) -> None:
        """Build the learner and what RLlib's loss remembers between steps."""
        super().build()
        config: Any = self.config  # PPO's, under RLlib's annotation of any algorithm's
        cloning = config.learner_config_dict["algorithm"] == "bc"
        self.offline = BCConfig() if cloning else MARWILConfig().training(beta=MARWIL_BETA)
        self.offline.training(
            vf_coeff=0.0 if cloning else config.vf_loss_coeff,
            moving_average_sqd_adv_norm_update_rate=NORM_RATE,
            moving_average_sqd_adv_norm_start=NORM_START,
        )
        self.moving_avg_sqd_adv_norms_per_module = {DEFAULT_MODULE_ID: torch.tensor(NORM_START)}

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: Any,  # noqa: ARG002 - PPO's; the offline one takes its place
        batch: dict[str, Any],
        fwd_out: dict[str, Any],
    ) -> torch.Tensor:
        """RLlib's MARWIL loss of one minibatch; with beta 0 it is RLlib's BC loss.

        Args:
            module_id: RLlib's name of the module.
            config: PPO's; the offline one takes its place.
            batch: columns (n, ...) of n decisions.
            fwd_out: outputs (n, ...) of the module.

        Raises:
            UpdateError: the loss is not finite.
        """
        own: Any = self  # RLlib's loss needs no more of its learner than what `build` has made
        loss = cast(
            "torch.Tensor",
            MARWILTorchLearner.compute_loss_for_module(
                own, module_id=module_id, config=self.offline, batch=batch, fwd_out=fwd_out
            ),
        )
        if not bool(torch.isfinite(loss)):
            raise UpdateError(
                f"The loss of iteration {self.iteration} is {float(loss)}: an episode takes an action that "
                "policy.actions forbids, or a reward is not finite.",
                iteration=self.iteration,
            )
        log_probs = torch.log_softmax(fwd_out[Columns.ACTION_DIST_INPUTS].detach(), dim=-1)
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
        self.step_metrics.append({"total": float(loss.detach()), "entropy": float(entropy)})
        return loss
