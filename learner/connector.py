"""Advantages and value targets in RLlib's learner pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.evaluation.postprocessing import Postprocessing

from learner.gae import estimate_advantages, standardise
from learner.module import policy_module


class EpisodeAdvantages(ConnectorV2):
    """GAE over complete episodes, in place of RLlib's pair of connectors.

    RLlib appends a phantom step to every episode (to bootstrap cut ones) and standardises advantages over phantom
    and real rows alike, so short episodes get systematically wrong advantages (ray issue 57989). Our episodes are
    never cut: no phantom row exists here, and every row is valid.
    """

    def __init__(self, *, gamma_d: float, gae_lambda: float) -> None:
        super().__init__()
        self.gamma_d = gamma_d
        self.gae_lambda = gae_lambda

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
        with torch.no_grad():
            predictions: torch.Tensor = policy_module(rl_module[DEFAULT_MODULE_ID]).compute_values(columns)
        values = predictions.cpu().numpy()
        cuts = np.cumsum([len(episode) for episode in episodes])[:-1]
        advantages = np.concatenate(
            [
                estimate_advantages(rewards, episode_values, gamma_d=self.gamma_d, gae_lambda=self.gae_lambda)
                for rewards, episode_values in zip(
                    np.split(columns[Columns.REWARDS].cpu().numpy(), cuts), np.split(values, cuts), strict=True
                )
            ]
        )
        columns[Columns.VF_PREDS] = predictions
        columns[Postprocessing.ADVANTAGES] = torch.from_numpy(standardise(advantages)).to(predictions.device)
        columns[Postprocessing.VALUE_TARGETS] = torch.from_numpy(advantages + values).to(predictions.device)
        return batch
