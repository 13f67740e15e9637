"""The plots of a run while it works: drawn beside the training, one at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from addiffusion.records import Episode
from evaluation.report.training_plots import plot_action_mix, plot_learning_curves

_log = logging.getLogger(__name__)
_PATIENCE_S = 60.0
"""Longest wait for a drawing under way, which takes a second or two."""


class Plotter:
    """Draws the learning curves and what the latest episodes did at each step, on one thread of its own."""

    def __init__(self, folder: Path, *, num_steps: int, every_s: float) -> None:
        """Draw into ``folder`` at most every ``every_s`` seconds; the schedule has ``num_steps`` steps."""
        self._folder = folder
        self._num_steps = num_steps
        self._every_s = every_s
        self._executor = ThreadPoolExecutor(1, "plots")
        self._drawing: Future[None] | None = None
        self._due_s = time.monotonic() + every_s

    def offer(self, rows: Sequence[Mapping[str, float | None]], episodes: Sequence[Episode]) -> None:
        """Draw these metrics and episodes if the plots are old and nothing is being drawn."""
        if time.monotonic() < self._due_s or (self._drawing is not None and not self._drawing.done()):
            return
        self._report_failure()
        self._due_s = time.monotonic() + self._every_s
        self._drawing = self._executor.submit(self._draw, tuple(rows), tuple(episodes))

    def finish(self, rows: Sequence[Mapping[str, float | None]], episodes: Sequence[Episode]) -> None:
        """Draw these metrics and episodes after whatever is being drawn, and wait for it, but not for ever."""
        self._report_failure()
        self._drawing = self._executor.submit(self._draw, tuple(rows), tuple(episodes))
        wait([self._drawing], timeout=_PATIENCE_S)

    def _draw(self, rows: Sequence[Mapping[str, float | None]], episodes: Sequence[Episode]) -> None:
        plot_learning_curves(rows, self._folder / "learning_curves.png")
        plot_action_mix(episodes, self._folder / "training_action_mix.png", num_steps=self._num_steps)

    def _report_failure(self) -> None:
        """A picture that can't be drawn is told of, and ends no training."""
        drawing = self._drawing
        known = drawing is not None and drawing.done() and not drawing.cancelled()
        error = drawing.exception() if drawing is not None and known else None
        if error is not None:
            _log.warning("the plots could not be drawn: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawing is not None and kind is None:
            wait([self._drawing], timeout=_PATIENCE_S)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._report_failure()
