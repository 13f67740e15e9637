"""The agent's two networks: plain multi-layer perceptrons on the observation phi."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.actions import ACTION_COUNT

HIDDEN_GAIN = math.sqrt(2.0)
"""Orthogonal gain that keeps the variance through a ReLU (arXiv:1502.01852 Sec. 2.2)."""
POLICY_GAIN = 0.01
"""Gain of the policy head: the first policy is close to uniform, whatever phi is (arXiv:2006.05990 Sec. 3.2)."""
VALUE_GAIN = 1.0
"""Gain of the value head."""


class PolicyNetwork(nn.Module):
    """phi to the logits of the three actions, in the order of ``Action``."""

    def __init__(self, input_width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = build_mlp((input_width, *hidden, ACTION_COUNT), head_gain=POLICY_GAIN)

    def forward(self, phi: Float[Tensor, "*row p"]) -> Float[Tensor, "*row action"]:
        return self.layers(phi)


class ValueNetwork(nn.Module):
    """phi to the expected discounted reward from this decision on."""

    def __init__(self, input_width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = build_mlp((input_width, *hidden, 1), head_gain=VALUE_GAIN)

    def forward(self, phi: Float[Tensor, "*row p"]) -> Float[Tensor, "*row"]:
        return self.layers(phi).squeeze(-1)


def build_mlp(widths: Sequence[int], *, head_gain: float) -> nn.Sequential:
    """A ReLU perceptron with orthogonal weights and zero biases.

    Args:
        widths: input width, hidden widths, output width.
        head_gain: orthogonal gain of the last layer.
    """
    *hidden, head = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)]
    modules: list[nn.Module] = []
    for layer in hidden:
        modules += [_orthogonal(layer, HIDDEN_GAIN), nn.ReLU()]
    return nn.Sequential(*modules, _orthogonal(head, head_gain))


def _orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
