"""Policy and value network as one RLModule: RLlib's border to ``addiffusion.policy``."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from addiffusion.observation.layout import PREVIEW_CLIP
from addiffusion.policy import PolicyNetwork, ValueNetwork
from addiffusion.seeds import derive_seed
from addiffusion.threads import torch_threads


class PolicyModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """``policy`` acts, ``value`` only trains; rollout workers get the policy alone.

    ``model_config`` holds ``hidden`` (layer widths), ``prior`` (action probabilities before training), ``actions``
    (those it may take), ``doubts`` (whether at first a preview's low score speaks for a redraw) and ``seed`` (the
    run's): the initial weights are a function of these and of the observation's width, not of whatever drew random
    numbers before.
    """

    policy: PolicyNetwork
    value: ValueNetwork

    def setup(self) -> None:
        """Build the networks (called once by RLlib's constructor)."""
        width = int(self.observation_space.shape[0])
        hidden = tuple(self.model_config["hidden"])
        with torch.random.fork_rng(devices=[]), torch_threads(1):  # the orthogonal init's last bits depend on threads
            torch.manual_seed(derive_seed(self.model_config["seed"], "policy"))
            self.policy = PolicyNetwork(
                width, hidden, prior=self.model_config["prior"], actions=self.model_config["actions"]
            )
            if self.model_config["doubts"]:
                self.policy.doubt(PREVIEW_CLIP)
            torch.manual_seed(derive_seed(self.model_config["seed"], "value"))
            self.value = ValueNetwork(width, hidden)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:  # noqa: ARG002 - RLlib's signature
        return {Columns.ACTION_DIST_INPUTS: self.policy(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Float[Tensor, " n"]:  # noqa: ARG002 - RLlib's signature
        """Expected return (n,) of the observations (n, p) in ``batch``."""
        return self.value(batch[Columns.OBS])

    def get_non_inference_attributes(self) -> list[str]:
        """What rollout workers do not need."""
        return ["value"]


def policy_module(module: RLModule) -> PolicyModule:
    """The module behind whatever RLlib has wrapped around it."""
    return cast("PolicyModule", module.unwrapped())
