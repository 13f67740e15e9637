"""Ctrl-C asks: the run finishes what it is doing, saves and leaves. A second Ctrl-C insists."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether somebody has asked the run to end."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def interruptible(notify: Callable[[], None]) -> Iterator[Interrupt]:
    """Turn the first SIGINT or SIGTERM of the block into a request; ``notify`` is called once. Main thread only."""
    interrupt = Interrupt()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(_number: int, _frame: FrameType | None) -> None:
        for signal_number, handler in previous.items():
            signal.signal(signal_number, handler)
        interrupt.requested = True
        notify()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
