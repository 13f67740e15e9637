"""The thread that scores, replaced when a call hangs: Python can't end a thread, only stop waiting for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from addiffusion.cancellation import Cancellation, GivenUpError

Result = TypeVar("Result")


class HungError(Exception):
    """A call was given up at its deadline."""


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    outcome: Future[Any]
    cancellation: Cancellation


class ScoringThread:
    """Runs one call at a time off the event loop, each with a deadline that counts from its start.

    A call that was given up changes no cache and no account any more, and its result is dropped. Its thread ends when
    the call does; it never holds up the end of the process.
    """

    def __init__(self, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._turn = asyncio.Lock()
        self._calls = _fresh()
        self._current: Cancellation | None = None

    async def run(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """``function(*arguments)`` when it has ended, with its result or exception.

        Raises:
            HungError: it did not end in time; its thread is given up and the next call has a new one.
        """
        async with self._turn:
            call = _Call(function, arguments, Future(), Cancellation())
            self._current = call.cancellation
            self._calls.put(call)
            running: asyncio.Future[Result] = asyncio.wrap_future(call.outcome)
            done, _ = await asyncio.wait([running], timeout=self._deadline_s)
            if not done:
                self.close()
                self._calls = _fresh()
                raise HungError
            return running

    def close(self) -> None:
        """Take no more calls, give up the one that runs and wait for none."""
        if self._current is not None:
            self._current.cancel()
        self._calls.put(None)


def _fresh() -> SimpleQueue[_Call | None]:
    calls: SimpleQueue[_Call | None] = SimpleQueue()
    threading.Thread(target=_work, args=(calls,), name="scoring", daemon=True).start()
    return calls


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        _answer(call)


def _answer(call: _Call) -> None:
    """Run the call; whatever it raises belongs to its caller, who waits for nothing else."""
    result, error = None, None
    try:
        with call.cancellation.covering():
            result = call.function(*call.arguments)
    except GivenUpError:
        return
    except BaseException as raised:
        error = raised
    if call.cancellation.cancelled or call.outcome.cancelled():
        return
    if error is None:
        call.outcome.set_result(result)
    else:
        call.outcome.set_exception(error)
