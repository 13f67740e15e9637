"""The one thread that scores. A call that hangs loses it: Python can't end a thread, only stop waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class HungError(Exception):
    """A call was given up at its deadline."""


class ScoringThread:
    """Runs one call at a time off the event loop, each with a deadline that counts from its start."""

    def __init__(self, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._turn = asyncio.Lock()
        self._executor = _fresh()

    async def run(self, call: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """``call(*arguments)`` when it has ended, with its result or exception.

        Raises:
            HungError: it did not end in time; its thread is given up and the next call has a new one.
        """
        async with self._turn:
            running = asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)
            done, _ = await asyncio.wait([running], timeout=self._deadline_s)
            if not done:
                running.add_done_callback(_ignore)
                self.close()
                self._executor = _fresh()
                raise HungError
            return running

    def close(self) -> None:
        """Take no more calls and wait for none."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _fresh() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="scoring")


def _ignore(late: asyncio.Future[Any]) -> None:
    """What a given-up call comes to is nobody's business any more; asking silences asyncio's complaint."""
    if not late.cancelled():
        late.exception()
