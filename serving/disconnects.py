"""Clients that go away: what was begun for them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

_Value = TypeVar("_Value")


async def until_gone(request: Request, work: Awaitable[_Value]) -> _Value | None:
    """The result of ``work``, which is cancelled when the client closes its connection; None then.

    Args:
        request: its body has been read.
        work: for the answer.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
