"""Advantages and value targets in RLlib's learner pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.evaluation.postprocessing import Postprocessing

from addiffusion.policy import masked_like
from learner.gae import decision_weights, estimate_advantages, standardise
from learner.module import PolicyModule, policy_module

WEIGHTS = "decision_weights"
"""Column of each decision's weight in the loss."""


class EpisodeAdvantages(ConnectorV2):
    """GAE over complete episodes, in place of RLlib's pair of connectors.

    RLlib appends a phantom step to every episode (to bootstrap cut ones) and standardises advantages over phantom
    and real rows alike, so short episodes get systematically wrong advantages (ray issue 57989). Our episodes are
    never cut: no phantom row exists here, and every row is valid.
    """

    def __init__(
        self,
        *,
        gamma_d: float,
        gae_lambda: float,
        off_policy: bool = False,
        weighting: Literal["decision", "episode"] = "decision",
    ) -> None:
        """A connector for PPO, or for decisions by older weights.

        Args:
            gamma_d: discount per decision.
            gae_lambda: 0 trusts the values, 1 the rewards.
            off_policy: advantages are V-trace's, and the probabilities that the loss compares with are those of the
                weights before this update, not of those that acted: the clip range is then around the present policy,
                however old a decision is (arXiv:2110.00641 calls it the proximal policy).
            weighting: see ``learner.gae.decision_weights``.
        """
        super().__init__()
        self.gamma_d = gamma_d
        self.gae_lambda = gae_lambda
        self.off_policy = off_policy
        self.weighting: Literal["decision", "episode"] = weighting

    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: Sequence[Any],
        **kwargs: Any,  # noqa: ARG002 - RLlib passes more than is needed
    ) -> dict[str, Any]:
        """Add value predictions, standardised advantages and value targets to the columns of ``batch``."""
        assert isinstance(rl_module, MultiRLModule)
        columns = batch[DEFAULT_MODULE_ID]
        module = policy_module(rl_module[DEFAULT_MODULE_ID])
        with torch.no_grad():
            predictions: torch.Tensor = module.compute_values(columns)
            ratios = self._ratios(module, columns) if self.off_policy else None
        lengths = [len(episode) for episode in episodes]
        values = predictions.cpu().numpy()
        advantages = self._advantages(columns[Columns.REWARDS].cpu().numpy(), values, ratios, np.cumsum(lengths)[:-1])
        columns[Columns.VF_PREDS] = predictions
        for name, column in (
            (Postprocessing.ADVANTAGES, standardise(advantages)),
            (Postprocessing.VALUE_TARGETS, advantages + values),
            (WEIGHTS, decision_weights(lengths, by=self.weighting)),
        ):
            columns[name] = torch.from_numpy(column).to(predictions.device)
        return batch

    @staticmethod
    def _ratios(module: PolicyModule, columns: dict[str, Any]) -> Float32[np.ndarray, " n"]:
        """How much likelier each action has become; from here on its probability is the present one."""
        logits = masked_like(module.policy(columns[Columns.OBS]), columns[Columns.ACTION_DIST_INPUTS])
        log_probs = torch.log_softmax(logits, dim=-1)
        present = log_probs.gather(-1, columns[Columns.ACTIONS][:, None].long()).squeeze(-1)
        ratios = (present - columns[Columns.ACTION_LOGP]).exp()
        columns[Columns.ACTION_LOGP] = present
        return ratios.cpu().numpy()

    def _advantages(
        self,
        rewards: Float32[np.ndarray, " n"],
        values: Float32[np.ndarray, " n"],
        ratios: Float32[np.ndarray, " n"] | None,
        cuts: Int64[np.ndarray, " cut"],
    ) -> Float32[np.ndarray, " n"]:
        """(n,) episode by episode."""
        trusted = np.ones_like(rewards) if ratios is None else ratios
        parts = zip(*(np.split(column, cuts) for column in (rewards, values, trusted)), strict=True)
        return np.concatenate(
            [
                estimate_advantages(
                    own_rewards, own_values, gamma_d=self.gamma_d, gae_lambda=self.gae_lambda, ratios=own_ratios
                )
                for own_rewards, own_values, own_ratios in parts
            ]
        )
