"""The agent's two networks: plain multi-layer perceptrons on the observation phi."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from addiffusion.actions import ACTION_NAMES, FIRST_ACTIONS, Action, action_count

HIDDEN_GAIN = math.sqrt(2.0)
"""Orthogonal gain that keeps the variance through a ReLU (arXiv:1502.01852 Sec. 2.2)."""
POLICY_GAIN = 0.01
"""Gain of the policy head: the first policy is close to its prior, whatever phi is (arXiv:2006.05990 Sec. 3.2)."""
FORBIDDEN_LOGIT = -1.0e4
"""Logit of an action the policy may not take: its probability is 0 in every precision, its entropy term too."""
OTHER_PRIOR = 0.02
"""Probability before training of each action that ``policy.prior`` does not name."""
VALUE_GAIN = 1.0
"""Gain of the value head."""


class PolicyNetwork(nn.Module):
    """phi to logits in the order of ``Action``: of FIRST_ACTIONS, or of all where it may take another."""

    forbidden: Tensor

    def __init__(
        self,
        input_width: int,
        hidden: Sequence[int],
        *,
        prior: Sequence[float] | None = None,
        actions: Sequence[str] = FIRST_ACTIONS,
    ) -> None:
        """An untrained network.

        Args:
            input_width: width of phi.
            hidden: widths of the hidden layers.
            prior: action probabilities the untrained policy is close to, see ``prior_of``; None for uniform.
            actions: names of the actions it may take.
        """
        super().__init__()
        count = action_count(actions)
        self.layers = build_mlp((input_width, *hidden, count), head_gain=POLICY_GAIN)
        # Not part of the state: it says what is allowed, not what was learned.
        forbidden = torch.tensor([name not in actions for name in ACTION_NAMES[:count]])
        self.register_buffer("forbidden", forbidden, persistent=False)
        if prior is not None:
            head = self.layers[-1]
            assert isinstance(head, nn.Linear)
            with torch.no_grad():
                head.bias.copy_(torch.tensor(prior_of(prior, count)).log())

    @torch.no_grad()
    def sharpen(self, factor: float) -> None:
        """Multiply the log odds of stop against continue by ``factor``; their sum, and all other logits, stay."""
        head = self.layers[-1]
        assert isinstance(head, nn.Linear)
        pair = [Action.CONTINUE, Action.STOP]
        for rows in (head.weight, head.bias):
            middle = rows[pair].mean(0)
            rows[pair] = middle + factor * (rows[pair] - middle)

    @torch.no_grad()
    def doubt(self, column: int) -> None:
        """Let low scores speak for beginning again, before training.

        The log odds of a redraw rise by 1 for each unit that phi[column] lies below 0; one hidden unit of each layer
        is given to that. Drawn at random, redraws cost more than they gain, and are given up before it is learned
        where they would not.

        Args:
            column: of phi; negative from its end.
        """
        *hidden, head = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        place, sign = column, -1.0
        for layer in hidden:
            layer.weight[0] = 0
            layer.weight[0, place], place, sign = sign, 0, 1.0
        head.weight[:, 0] = 0
        head.weight[Action.REDRAW, 0] = 1

    def forward(self, phi: Float[Tensor, "*row p"]) -> Float[Tensor, "*row action"]:
        """Logits of any number of observations."""
        for layer in self.layers:  # without their hooks: after a denoiser's pass, looking for them costs as much
            phi = layer.forward(phi)
        return phi.masked_fill(self.forbidden, FORBIDDEN_LOGIT)

    @torch.no_grad()
    def frozen(self) -> Callable[[Float[Tensor, "row p"]], Float[Tensor, "row action"]]:
        """``forward`` of a few rows, by a copy of the weights as they are now.

        A denoiser's pass leaves nothing of the weights in the caches: of a few rows most of the time is that of
        fetching them, which by column takes two thirds as long. The last bits differ from those of ``forward``. The
        head stays as it is: by column, products of so few outputs depend on a row's place.
        """
        *layers, head = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        hidden = [(layer.weight.t().contiguous(), layer.bias.clone()) for layer in layers]
        weight, bias, forbidden = head.weight.clone(), head.bias.clone(), self.forbidden.clone()

        def logits(phi: Float[Tensor, "row p"]) -> Float[Tensor, "row action"]:
            for by_column, offset in hidden:
                phi = torch.addmm(offset, phi, by_column).relu_()
            return nn.functional.linear(phi, weight, bias).masked_fill_(forbidden, FORBIDDEN_LOGIT)

        return logits


class ValueNetwork(nn.Module):
    """phi to the expected discounted reward from this decision on."""

    def __init__(self, input_width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = build_mlp((input_width, *hidden, 1), head_gain=VALUE_GAIN)

    def forward(self, phi: Float[Tensor, "*row p"]) -> Float[Tensor, "*row"]:
        """Values of any number of observations."""
        return self.layers(phi).squeeze(-1)


def prior_of(prior: Sequence[float], count: int) -> list[float]:
    """Probabilities of ``count`` actions.

    Those that ``prior`` leaves out have OTHER_PRIOR each; where it names more, they are shares of what these have.
    """
    prior = [share / sum(prior[:count]) for share in prior[:count]] if len(prior) > count else prior
    others = count - len(prior)
    return [share * (1 - others * OTHER_PRIOR) for share in prior] + [OTHER_PRIOR] * others


def payable(logits: NDArray[np.float32], allowed: Sequence[bool]) -> NDArray[np.float32]:
    """Logits (a,) of a decision with FORBIDDEN_LOGIT for what ``allowed``, by ``Action``, forbids there."""
    allowed = allowed[: len(logits)]
    return logits if all(allowed) else np.where(allowed, logits, np.float32(FORBIDDEN_LOGIT))


def masked_like(logits: Float[Tensor, "*row action"], acted: Float[Tensor, "*row action"]) -> Tensor:
    """Logits with the actions forbidden that were forbidden when these decisions were taken.

    Args:
        logits: of any weights.
        acted: as in ``Episode.logits``.
    """
    return logits.masked_fill(acted <= FORBIDDEN_LOGIT, FORBIDDEN_LOGIT)


def likeliest(logits: NDArray[np.float32]) -> Action:
    """The action of the greatest of (a,) logits; of equal ones the first."""
    return Action(int(logits.argmax()))


def choose(logits: NDArray[np.float32], generator: torch.Generator | None) -> tuple[Action, float]:
    """One action and its log-probability from the logits (a,) of one decision.

    Row by row and in float64, so that a draw depends on nothing but its own logits and its own generator.

    Args:
        logits: finite.
        generator: one uniform number is drawn from it and put through the inverse CDF; None takes the likeliest
            action.
    """
    shifted = logits.astype(np.float64) - logits.max()
    log_probs = shifted - np.log(np.exp(shifted).sum())
    if generator is None:
        index = likeliest(logits)
    else:
        *bounds, total = np.exp(log_probs).cumsum().tolist()
        uniform = float(torch.rand((), generator=generator, dtype=torch.float64))
        index = bisect_right(bounds, uniform * total)
    return Action(index), float(log_probs[index])


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
