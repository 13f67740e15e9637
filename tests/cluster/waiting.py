"""Waiting for what other processes bring about: polls with a deadline, never a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

POLL_S = 0.25


def wait_for(
    what: str, look: Callable[[], Found | None], *, timeout_s: float, give_up: Callable[[], str] = str
) -> Found:
    """What ``look`` returns once it is true.

    Args:
        what: for the message when it does not come about.
        look: is asked until it answers; errors of connections count as "not yet".
        timeout_s: deadline.
        give_up: what to show when the deadline has passed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = look()
        except OSError:
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about in {timeout_s:g} s. {give_up()}")
        time.sleep(POLL_S)
