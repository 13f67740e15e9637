"""Calls in threads that are given up: a thread can't be ended, but what it still does changes nothing any more."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class GivenUpError(Exception):
    """Raised in the thread of a pass that was given up, at its next change of a cache or an account."""


class Cancellation:
    """Whether one call in a thread is still wanted."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """True once the call was given up."""
        return self._cancelled

    def cancel(self) -> None:
        """Give the call up; when this returns, it has changed for the last time what others share."""
        with self._lock:
            self._cancelled = True

    @contextmanager
    def covering(self) -> Generator[None]:
        """Within it the calling thread works for this call."""
        _thread.cancellation = self
        try:
            yield
        finally:
            _thread.cancellation = None

    @contextmanager
    def committing(self) -> Generator[None]:
        """See ``committing``."""
        with self._lock:
            if self._cancelled:
                raise GivenUpError
            yield


class _Thread(threading.local):
    cancellation: Cancellation | None = None


_thread = _Thread()


@contextmanager
def committing() -> Generator[None]:
    """Within it shared state may be changed: the call of this thread can't be given up meanwhile.

    Raises:
        GivenUpError: it was given up before.
    """
    if _thread.cancellation is None:
        yield
        return
    with _thread.cancellation.committing():
        yield
