"""What each model of a suite has cost, and how often it has failed."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from addiffusion.cancellation import committing
from addiffusion.scorers.base import ScorerUsage


class Account:
    """Written by the scoring thread, read by any: each entry is replaced as a whole.

    Shared work, such as the CLIP forward, is charged to whoever asks for it first.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._errors: Counter[str] = Counter()
        self._halved_count = 0
        self._running: str | None = None

    @contextmanager
    def charge(self, name: str) -> Iterator[None]:
        """Charge the time of the block to ``name``."""
        started = time.perf_counter()
        with committing():
            self._running = name
        try:
            yield
        finally:
            with committing():
                self._running = None
                self._seconds[name] += time.perf_counter() - started

    def blame(self, names: Iterable[str]) -> None:
        """Count one error for each name."""
        with committing():
            self._errors.update(names)

    def halved(self) -> None:
        """Count one pass that ran out of memory."""
        with committing():
            self._halved_count += 1

    def usage(self) -> ScorerUsage:
        """The account so far."""
        return ScorerUsage(
            seconds=dict(self._seconds),
            error_count=dict(self._errors),
            halved_count=self._halved_count,
            running=self._running,
        )
