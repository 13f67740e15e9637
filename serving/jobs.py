"""Orders of front ends under way, whose calls for progress and interruption name none of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.messages import Decided, Drawn, Order, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an order is. Plain values: it may travel to another process."""

    request_id: str
    image_count: int
    drawn_count: int
    share: float
    """Of the full runs' steps, as far as they were told; an image that is done counts as whole."""
    seconds: float
    """Since it came to its engine."""
    step: int
    """Of the image that is furthest."""
    num_steps: int
    interrupted: bool
    preview: NDArray[np.uint8] | None
    """(H, W, 3), the last one, where it was asked for and there is one."""


class Job:
    """What an order was told so far."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.interrupted = False
        self._begun_s = time.monotonic()
        self._step: dict[int, int] = {}
        """Step of each image's last preview."""
        self._num_steps = 1
        self._preview: NDArray[np.uint8] | None = None
        self._drawn: set[int] = set()

    def note(self, outcome: Outcome) -> None:
        """Take in what the order is told."""
        if isinstance(outcome, Decided):
            self._step[outcome.image], self._num_steps = outcome.step, outcome.num_steps
            self._preview = outcome.preview
        elif isinstance(outcome, Drawn):
            self._drawn.add(outcome.image)

    def progress(self, *, preview: bool) -> Progress:
        """How far it is.

        Args:
            preview: with its last preview.
        """
        count = len(self.order.seeds)
        under_way = sum(step / self._num_steps for image, step in self._step.items() if image not in self._drawn)
        return Progress(
            request_id=self.order.request_id,
            image_count=count,
            drawn_count=len(self._drawn),
            share=min(1.0, (len(self._drawn) + under_way) / count),
            seconds=time.monotonic() - self._begun_s,
            step=max(self._step.values(), default=0),
            num_steps=self._num_steps,
            interrupted=self.interrupted,
            preview=self._preview if preview else None,
        )
