"""Lost workers: when an answer is overdue, when a loss is bad luck, when to wait, and when to give up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from math import exp
from statistics import fmean
from typing import NewType

from addiffusion.errors import RolloutError
from addiffusion.records import Episode

WorkerId = NewType("WorkerId", int)
"""A rollout worker's number, RLlib's; one that is restarted keeps it."""
_LONGEST_PAUSE_S = 30.0
_REMEMBERED = 256
_PATIENCE = 4.0
"""An episode may take as many times what the slowest of those remembered took."""


class Pace:
    """Seconds from admission to final score of the episodes finished last."""

    def __init__(self, *, timeout_s: float) -> None:
        """An episode is given ``timeout_s`` in any case."""
        self._timeout_s = timeout_s
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._slowest_s = 0.0

    def note(self, episodes: Iterable[Episode]) -> None:
        """Remember what these took."""
        self._seconds.extend(episode.seconds for episode in episodes)
        self._slowest_s = max(self._seconds, default=0.0)  # once an answer: deadlines are asked for by every worker

    @property
    def least_limit_s(self) -> float:
        """No ``limit_s`` is shorter."""
        return self._timeout_s

    def limit_s(self, ticket_count: int, *, at_once: int) -> float:
        """Longest time for an answer of a worker that has ``ticket_count`` tickets and works on ``at_once`` of them."""
        rounds = max(1, -(-ticket_count // at_once))
        return rounds * max(self._timeout_s, _PATIENCE * self._slowest_s)

    def words(self) -> str:
        """What was measured, as part of a sentence."""
        if not self._seconds:
            return "no episode has been finished yet"
        return f"this run's episodes took {fmean(self._seconds):.3g} s each, the slowest {self._slowest_s:.3g} s"


class Hazard:
    """Rate of losses of workers per second of work, whatever the tickets."""

    def __init__(self) -> None:
        self._worked_s = 0.0
        self._lost_count = 0

    def worked(self, seconds: float, *, lost: bool) -> None:
        """Note a call that took so long; ``lost``: it ended with its worker."""
        self._worked_s += seconds
        self._lost_count += lost

    def chance(self, seconds: float, *, own: int) -> float:
        """Probability that a worker is lost in ``seconds`` of work, all losses but ``own`` ones considered."""
        return 1 - exp(-seconds * max(0, self._lost_count - own) / max(self._worked_s, seconds, 1e-9))


class LossRecord:
    """Count of restarts in a row that brought nothing.

    A worker that was started after the loss before and is lost again, while nobody has finished an episode, makes the
    row longer by one. Workers lost together count once: none of them was started after another one's loss.
    """

    def __init__(self, *, max_restarts: int) -> None:
        """``max_restarts`` fruitless ones in a row are allowed."""
        self._max_restarts = max_restarts
        self._row = 0
        self._row_at_start: Counter[WorkerId] = Counter()
        self._reasons: Counter[str] = Counter()
        self._measured = ""

    def started(self, worker_id: WorkerId) -> None:
        """Note that a worker can be given tickets."""
        self._row_at_start[worker_id] = self._row

    def finished(self) -> None:
        """Note that an episode was finished by any worker: the row is broken."""
        self._row = 0
        self._row_at_start.clear()
        self._reasons.clear()

    def lost(self, worker_id: WorkerId, reason: str, measured: str) -> float:
        """Note a loss and what was measured before it; returns the seconds until the worker may be given tickets again.

        Raises:
            RolloutError: too many in a row.
        """
        self._reasons[reason] += 1
        self._measured = measured
        self._row = max(self._row, self._row_at_start[worker_id] + 1)
        if self._row > self._max_restarts:
            raise self._given_up()
        return 0.0 if self._row == 1 else min(_LONGEST_PAUSE_S, 2.0 ** (self._row - 2))

    def _given_up(self) -> RolloutError:
        reasons = "; ".join(f"{reason} ({count} times)" for reason, count in self._reasons.most_common())
        return RolloutError(
            f"Rollout workers were restarted {self._max_restarts} times in a row (rollout.max_restarts) and lost again "
            f"each time before anyone had finished an episode: {reasons}; the last one {self._measured}. The workers' "
            "log says more; where a process just ended it is often memory: lower rollout.slots or rollout.workers.",
            restarts=self._max_restarts,
            reasons=dict(self._reasons),
        )
