"""The port between whoever wants episodes (learner, evaluation) and whoever rolls them out (one process or many)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from addiffusion.config import SamplerSection
from addiffusion.records import Episode, FailedEpisode, Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class FullQueue:
    """Ticks in which no slot lacked an image: what work costs where the tail of a set is not in it."""

    seconds: float = 0.0
    network_evals: int = 0
    """Rows of the network batch that images took."""

    def __add__(self, other: FullQueue) -> FullQueue:
        """Both together."""
        return FullQueue(seconds=self.seconds + other.seconds, network_evals=self.network_evals + other.network_evals)

    @property
    def seconds_per_eval(self) -> float:
        """Seconds of a worker for each row; NaN where no ticket ever waited."""
        return self.seconds / self.network_evals if self.network_evals else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The outcome of a batch of tickets: every ticket is in exactly one of the two tuples."""

    episodes: tuple[Episode, ...]
    """Finished episodes in the order of their ticket ids."""
    failed: tuple[FailedEpisode, ...] = ()
    """Tickets that could not be finished, in the order of their ticket ids."""
    stage_s: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds spent per stage (network, decode, score, policy, ...), summed over workers."""
    full_queue: FullQueue = FullQueue()
    """Work that was done while tickets waited for slots, summed over workers."""


@runtime_checkable
class Rollouts(Protocol):
    """Rolls tickets out with the current policy weights."""

    def set_weights(self, weights: Any, version: int) -> None:
        """Give every worker the policy weights (an RLModule inference state) and their version."""
        ...

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Roll out ``tickets``; ``sampler`` replaces the run's own (static baselines).

        Raises:
            RolloutError: no worker could finish them in time.
        """
        ...

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """Take ``tickets`` in beside those under way, work on for a while, and return what has ended; possibly nothing.

        Episodes under way go on with the latest weights. A ticket comes back from exactly one call.

        Raises:
            RolloutError: no worker came back in time.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """State of the remote workers of some ``Rollouts``, as counts."""

    up_count: int
    """Workers that can be given tickets."""
    absent_count: int
    """Workers that are starting, restarting, or wait for a node."""
    lost_count: int
    """Times a worker was lost."""
    moved_count: int
    """Tickets that went to another worker because theirs was lost."""


@runtime_checkable
class HasWorkers(Protocol):
    """Rollouts with remote workers, which come and go."""

    def worker_status(self) -> WorkerStatus:
        """Counts of workers that are up, absent and lost, and of tickets that moved."""
        ...


def workers_up(rollouts: Rollouts) -> int:
    """Workers that can be given tickets now, one at least; this process counts as one."""
    return max(1, rollouts.worker_status().up_count) if isinstance(rollouts, HasWorkers) else 1
