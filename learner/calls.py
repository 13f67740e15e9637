"""Calls to workers, their answers, and the port to the workers themselves. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from addiffusion.baseline import Baseline
from addiffusion.config import SamplerSection
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from learner.losses import Hazard, WorkerId

POLL_S = 0.5
"""Longest sleep before deadlines and lost workers are looked at again; results end it at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How tickets are rolled out."""

    sampler: SamplerSection | None = None
    """Replaces the run's own."""
    baseline: Baseline | None = None
    """Draws in place of the workers' engines, and ends what it was given with the call."""
    counted: bool = False
    """Tickets are added in such numbers that the workers that are up hold all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One call of a worker."""

    job: Job
    tickets: tuple[Ticket, ...]
    """New ones."""
    session: int
    """Its number; a worker forgets tickets of another one."""
    more: bool
    """The next call brings further tickets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A call without an answer, because its worker is lost."""

    reason: str


@runtime_checkable
class Workers(Protocol):
    """Port: workers by id, and their calls by reference."""

    tried: set[WorkerId]
    """Ids of workers that have answered a call since they were started: their model is loaded."""
    hazard: Hazard

    @property
    def up(self) -> list[WorkerId]:
        """Ids of the workers that can be given work, in order."""
        ...

    def submit(self, worker_id: WorkerId, order: Order) -> Hashable:
        """Queue a call; returns its reference."""
        ...

    def answered(self, references: Sequence[Hashable], *, timeout_s: float) -> list[Hashable]:
        """References of calls that have an answer or a loss; waits up to ``timeout_s`` seconds for the first."""
        ...

    def answer(self, worker_id: WorkerId, reference: Hashable) -> Collected | Loss:
        """The answer of a call that has one, or its loss.

        Raises:
            AdDiffusionError: what the worker raised on purpose.
        """
        ...

    def lose(self, worker_id: WorkerId, reason: str, measured: str, *, restart: bool) -> None:
        """Count a worker as lost until it is up again.

        Args:
            worker_id: of the worker.
            reason: of the loss, in words.
            measured: what was measured before it, in words.
            restart: end its process first, because it hangs.

        Raises:
            RolloutError: too many were lost in a row, and nothing was finished.
        """
        ...

    def finished(self) -> None:
        """Note that an episode was finished by any worker."""
        ...

    def revive(self) -> None:
        """Take in workers that are back or new, without waiting."""
        ...

    def await_worker(self) -> None:
        """Wait until a worker is up.

        Raises:
            RolloutError: none comes.
        """
        ...
