"""How fast this run's own episodes are: what a deadline has to allow for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import fmean

from addiffusion.records import Episode

_REMEMBERED = 256
_PATIENCE = 4.0
"""An episode may take as many times what the slowest of those remembered took."""


class Pace:
    """Seconds from admission to final score of the episodes finished last."""

    def __init__(self, *, timeout_s: float) -> None:
        """An episode is given ``timeout_s`` in any case."""
        self._timeout_s = timeout_s
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, episodes: Iterable[Episode]) -> None:
        """Remember what these took."""
        self._seconds.extend(episode.seconds for episode in episodes)

    def limit_s(self, ticket_count: int, *, at_once: int) -> float:
        """Longest time for an answer of a worker that has ``ticket_count`` tickets and works on ``at_once`` of them."""
        rounds = max(1, -(-ticket_count // at_once))
        return rounds * max(self._timeout_s, _PATIENCE * max(self._seconds, default=0.0))

    def words(self) -> str:
        """What was measured, as part of a sentence."""
        if not self._seconds:
            return "no episode has been finished yet"
        return f"this run's episodes took {fmean(self._seconds):.3g} s each, the slowest {max(self._seconds):.3g} s"
