"""The agent without some of its actions: what each of them is worth to it, with nothing learned anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import ACTION_NAMES, Action
from addiffusion.config import Config
from addiffusion.errors import UsageError
from addiffusion.policy import FORBIDDEN_LOGIT
from addiffusion.policy_files import bias_of_head
from evaluation.comparison.contestants import Contestant

WITHOUT = "without-"
"""What their names begin with."""


def without(text: str, config: Config) -> Contestant:
    """The agent without the actions ``text`` names: `refine`, or `refine+leap`.

    Raises:
        UsageError: the policy has no such action, or could not go on without it.
    """
    names, own = text.split("+"), [name for name in config.policy.actions if name != ACTION_NAMES[Action.CONTINUE]]
    if not set(names) <= set(own):
        raise UsageError(
            f"--without {text}: give one or several of {', '.join(own)}, joined by +, which the policy can take and "
            "go on without.",
            without=text,
        )
    return Contestant(
        name=WITHOUT + "-".join(names),
        title=f"without {' and '.join(names)}",
        kind="ablated",
        sampler=config.sampler,
        policy=sum(1 << ACTION_NAMES.index(name) for name in set(names)),
        c_nfe=config.reward.c_nfe,
    )


def policies_of(
    weights: Mapping[str, NDArray[np.float32]], contestants: Sequence[Contestant]
) -> dict[int, Mapping[str, NDArray[np.float32]]]:
    """Weights of the policies of some contestants, by ``Contestant.policy``."""
    keys = {0} | {one.policy for one in contestants if one.policy is not None}
    return {key: _without(weights, [action for action in Action if key >> action & 1]) for key in sorted(keys)}


def _without(
    weights: Mapping[str, NDArray[np.float32]], actions: Sequence[Action]
) -> Mapping[str, NDArray[np.float32]]:
    """The same policy, but its logits of these actions are too low to be chosen."""
    bias = bias_of_head(weights)
    lowered = weights[bias].copy()
    lowered[list(actions)] = FORBIDDEN_LOGIT
    return {**weights, bias: lowered}
