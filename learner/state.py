"""The port to a learner, and the record of its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.records import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerState:
    """Everything the next update depends on besides its episodes and its iteration."""

    policy: dict[str, Tensor]
    """State of the policy network."""
    value: dict[str, Tensor]
    """State of the value network."""
    optimizer: dict[str, Any]
    """State of the optimizer as torch gives it."""


@runtime_checkable
class Learner(Protocol):
    """Episodes in, weights out: ``learner.update.PolicyLearner``."""

    def update(self, episodes: Sequence[Episode], *, iteration: int) -> dict[str, float]:
        """Train on complete episodes, in the order given, and return means over the gradient steps."""
        ...

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the policy network's state."""
        ...

    def state(self) -> LearnerState:
        """A copy of everything a checkpoint needs."""
        ...

    def load_state(self, state: LearnerState) -> None:
        """Go on from ``state``."""
        ...
