"""The port between an API and whoever draws: an engine in this process, or replicas on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from serving.errors import RequestError, UnavailableError
from serving.jobs import Job, Progress
from serving.limits import Limits
from serving.loop import EngineLoop
from serving.messages import Cancel, Drawn, Failed, Order, Outcome, Refused, Steer, Submit
from serving.model import ServedFacts

_PATIENCE_S = 15.0
"""Between two looks at whether the engine hangs."""


@runtime_checkable
class Drawing(Protocol):
    """Draws the images of orders."""

    @property
    def facts(self) -> ServedFacts:
        """What clients may ask for."""
        ...

    def draw(self, order: Order) -> AsyncGenerator[Outcome]:
        """What becomes of an order: ``Accepted``, then decisions and as many ``Drawn`` as it has images.

        Closing the generator gives up what is left.

        Raises:
            RequestError: it is refused, or has failed.
        """
        ...

    async def steer(self, message: Steer) -> None:
        """Override the policy in one image; nothing happens where the request is answered already."""
        ...

    async def interrupt(self) -> None:
        """End the orders of front ends: they are told their images as they are, then ``CancelledError``."""
        ...

    async def progress(self, *, preview: bool) -> Progress | None:
        """How far the oldest order of a front end is; None without one.

        Args:
            preview: with its last preview.
        """
        ...

    async def check_health(self) -> None:
        """Do nothing.

        Raises:
            UnavailableError: nothing can be drawn any more.
        """
        ...


class LocalDrawing:
    """Draws by an engine loop of this process, from any event loop."""

    def __init__(self, engine_loop: EngineLoop, facts: ServedFacts, limits: Limits) -> None:
        self._loop, self._facts, self._limits = engine_loop, facts, limits
        self._jobs: dict[str, Job] = {}

    @property
    def facts(self) -> ServedFacts:
        """See ``Drawing.facts``."""
        return self._facts

    @property
    def refusal(self) -> RequestError | None:
        """Why nothing can be drawn any more; None while it can."""
        return self._loop.refusal

    async def draw(self, order: Order) -> AsyncGenerator[Outcome]:
        """See ``Drawing.draw``.

        Raises:
            RequestError: the order is refused, or has failed.
        """
        here, outcomes = asyncio.get_running_loop(), asyncio.Queue[Outcome]()

        def tell(outcome: Outcome) -> None:
            if not here.is_closed():
                here.call_soon_threadsafe(outcomes.put_nowait, outcome)

        self._loop.send(Submit(order=order, tell=tell))
        left, job = len(order.seeds), Job(order)
        if order.by_front_end:
            self._jobs[order.request_id] = job
        try:
            while left:
                outcome = await self._next(outcomes)
                if isinstance(outcome, Refused | Failed):
                    left = 0
                    raise outcome.error
                left -= isinstance(outcome, Drawn)
                job.note(outcome)
                yield outcome
        finally:
            self._jobs.pop(order.request_id, None)
            if left:
                self._loop.send(Cancel(request_id=order.request_id))

    async def steer(self, message: Steer) -> None:
        """See ``Drawing.steer``."""
        self._loop.send(message)

    async def interrupt(self) -> None:
        """See ``Drawing.interrupt``."""
        for job in self._jobs.values():
            job.interrupted = True
            self._loop.send(Cancel(request_id=job.order.request_id, as_they_are=True))

    async def progress(self, *, preview: bool) -> Progress | None:
        """See ``Drawing.progress``."""
        job = next(iter(self._jobs.values()), None)
        return None if job is None else job.progress(preview=preview)

    async def check_health(self) -> None:
        """See ``Drawing.check_health``.

        Raises:
            UnavailableError: the engine hangs, is lost, or has ended.
        """
        if self._loop.refusal is not None:
            raise self._loop.refusal
        if not self._loop.alive:
            raise UnavailableError("The engine has ended; this server has to be started again.")
        if self._loop.stalled_s > self._limits.stall_s:
            raise UnavailableError(
                f"A tick has taken {self._loop.stalled_s:.0f} s: the device hangs.", retry_after_s=60
            )

    async def _next(self, outcomes: asyncio.Queue[Outcome]) -> Outcome:
        while True:
            try:
                return await asyncio.wait_for(outcomes.get(), _PATIENCE_S)
            except TimeoutError:
                if not self._loop.alive or self._loop.stalled_s > self._limits.stall_s:
                    await self.check_health()
