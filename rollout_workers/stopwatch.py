"""Where a worker's wall clock goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

Stage: TypeAlias = Literal["network", "decode", "score", "wait", "observe", "policy", "commit"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Keys of ``Collected.stage_s``. ``score`` runs beside the others; what the loop waits for it is in ``wait``."""


class Stopwatch:
    """Seconds per stage. On a GPU, ``network`` only queues work; ``decode`` then waits for it."""

    def __init__(self) -> None:
        self.stage_s: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        taken = self.stage_s
        self.stage_s = dict.fromkeys(STAGES, 0.0)
        return taken

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside the block to ``stage``."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.stage_s[stage] += time.perf_counter() - started_s
