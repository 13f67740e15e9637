"""Several learner processes as one: each gradient step is shared out by rows and averaged by torch's DDP.

RLlib would cut the batch into shards of equal length, in the midst of episodes, and each shard would estimate and
standardise its advantages alone. Here every process gets all episodes, so that advantages are those of one learner, and
takes its share of every minibatch (``EpisodePPOLearner``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError
from ray.rllib.core.learner.learner_group import LearnerGroup

from addiffusion.errors import AdDiffusionError
from addiffusion.records import Episode
from learner.state import LearnerState
from learner.update import PolicyLearner

_TIMEOUT_S = 600.0


class SharedLearner:
    """``learner.state.Learner`` over a group of remote learners, all of which hold the same weights."""

    def __init__(self, group: LearnerGroup) -> None:
        self._group = group

    def update(self, episodes: Sequence[Episode], *, iteration: int) -> dict[str, float]:
        """As ``PolicyLearner.update``; metrics are means over the processes.

        Raises:
            UpdateError: a gradient is not finite.
        """
        metrics: list[Mapping[str, float]] = self._each(
            _update, episodes=[ray.put(list(episodes))], iteration=iteration
        )
        return {name: float(np.mean([one[name] for one in metrics])) for name in metrics[0]}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the policy network's state."""
        return self._each(_weights)[0]

    def state(self) -> LearnerState:
        """A copy of everything a checkpoint needs."""
        return self._each(_state)[0]

    def load_state(self, state: LearnerState) -> None:
        """Have every process go on from ``state``."""
        self._each(_load_state, state=state)

    def _each(self, function: Callable[..., Any], **arguments: Any) -> list[Any]:
        results = self._group.foreach_learner(function, timeout_seconds=_TIMEOUT_S, **arguments)
        try:
            return [result.get() for result in results]
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, AdDiffusionError) else error from error


def _update(learner: Any, *, episodes: Sequence[ray.ObjectRef[Any]], iteration: int) -> dict[str, float]:
    return PolicyLearner(learner).update(ray.get(episodes[0], timeout=_TIMEOUT_S), iteration=iteration)


def _weights(learner: Any) -> dict[str, NDArray[np.float32]]:
    return PolicyLearner(learner).weights()


def _state(learner: Any) -> LearnerState:
    return PolicyLearner(learner).state()


def _load_state(learner: Any, *, state: LearnerState) -> None:
    PolicyLearner(learner).load_state(state)
