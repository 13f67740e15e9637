"""The reward service without Ray: many asyncio callers, one scoring thread, batches across callers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from addiffusion.config import ScorersSection
from addiffusion.errors import ScorerError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.requests import check_request, empty_reply, join_replies
from reward_service.batcher import Batch, Batcher, Joiner
from reward_service.pieces import Source, group_of, score_pieces

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStats:
    """Counters since the service started."""

    request_count: int = 0
    """Scoring requests received."""
    image_count: int = 0
    """Images scored."""
    prompt_count: int = 0
    """Prompts embedded."""
    batch_count: int = 0
    """Passes over the scorers."""
    held_back_count: int = 0
    """Requests that had to wait for room in the queue."""
    item_error_count: int = 0
    """Images that got an error instead of scores."""
    failed_batch_count: int = 0
    """Passes that raised; every caller with images in them got the error."""
    timeout_count: int = 0
    """Requests that ran past their deadline."""
    scoring_s: float = 0.0
    """Seconds the scorers were busy."""

    @property
    def mean_batch_images(self) -> float:
        """Images per pass; 0 before the first."""
        return self.image_count / self.batch_count if self.batch_count else 0.0


@dataclass(frozen=True, slots=True)
class _Pending:
    request: ScoreRequest
    answer: asyncio.Future[ScoreReply]


class RewardService:
    """Batches the scoring requests of many callers over one ``Scoring``.

    All coroutines belong to one event loop. Scoring has a thread of its own, so the loop goes on accepting meanwhile.
    At most ``queue_images`` images wait; callers beyond that are held back in the order they came.
    """

    def __init__(self, scoring: Scoring, section: ScorersSection) -> None:
        self._scoring = scoring
        self._section = section
        self._batcher = Batcher(
            max_images=section.batch_images, max_wait_s=section.max_wait_ms / 1000, clock=time.monotonic
        )
        self._joiner = Joiner[ScoreReply]()
        self._pending: dict[int, _Pending] = {}
        self._ids = itertools.count()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._line = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._runner: asyncio.Task[None] | None = None
        self._stats = ServiceStats()

    @property
    def names(self) -> tuple[str, ...]:
        """Every score column a request may ask for."""
        return self._scoring.names

    @property
    def clip_width(self) -> int:
        """Width of CLIP image and text embeddings."""
        return self._scoring.clip_width

    @property
    def dino_width(self) -> int:
        """Width of DINO features."""
        return self._scoring.dino_width

    def stats(self) -> ServiceStats:
        """The counters so far; may be called from any thread."""
        return self._stats

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """Score the images of one caller, in batches with whoever else is waiting.

        Raises:
            ContractError: the request is malformed; other callers are not affected.
            ScorerError: no answer within ``scorers.timeout_s``.
        """
        check_request(request)
        self._count(request_count=1)
        if len(request.images) == 0:
            return empty_reply(request, clip_width=self.clip_width, dino_width=self.dino_width)
        return await self._in_time(self._answer(request), f"{len(request.images)} images")

    async def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, e) L2-normalised CLIP text embeddings, computed between two batches.

        Raises:
            ScorerError: no answer within ``scorers.timeout_s``.
        """
        self._count(prompt_count=len(prompts))
        loop = asyncio.get_running_loop()
        embedded = loop.run_in_executor(self._thread, self._scoring.embed_text, prompts)
        return await self._in_time(embedded, f"{len(prompts)} prompts")

    async def close(self) -> None:
        """Stop scoring; callers that still wait are cancelled."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        for pending in self._pending.values():
            pending.answer.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_time(self, result: Awaitable[Result], what: str) -> Result:
        limit = asyncio.timeout(self._section.timeout_s)
        try:
            async with limit:
                return await result
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._count(timeout_count=1)
            raise ScorerError(
                f"No answer for {what} within scorers.timeout_s={self._section.timeout_s:g} s while "
                f"{self._batcher.waiting_image_count} images wait; raise the limit, or give the scorers more compute.",
                timeout_s=self._section.timeout_s,
            ) from error

    async def _answer(self, request: ScoreRequest) -> ScoreReply:
        request_id = next(self._ids)
        await self._admit(request_id, request)
        try:
            return await self._pending[request_id].answer
        finally:  # answered, failed, late or cancelled: nothing of it may stay
            del self._pending[request_id]
            self._joiner.forget(request_id)
            self._batcher.drop(request_id)
            self._room.set()

    async def _admit(self, request_id: int, request: ScoreRequest) -> None:
        """Queue the request once there is room; the lock is fair, so callers keep their order."""
        if self._line.locked() or not self._has_room_for(request):
            self._count(held_back_count=1)
        async with self._line:
            while not self._has_room_for(request):
                self._room.clear()
                await self._room.wait()
            self._pending[request_id] = _Pending(request, asyncio.get_running_loop().create_future())
            self._joiner.expect(request_id, len(request.images))
            self._batcher.add(request_id, group_of(request), len(request.images))
        self._wake()

    def _has_room_for(self, request: ScoreRequest) -> bool:
        waiting = self._batcher.waiting_image_count
        return waiting == 0 or waiting + len(request.images) <= self._section.queue_images

    def _wake(self) -> None:
        self._changed.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            batch = self._batcher.next_batch()
            if batch is None:
                await self._until_due()
            else:
                self._room.set()
                await self._process(batch)

    async def _until_due(self) -> None:
        """Sleep until a request comes in or a part-filled batch has waited long enough."""
        self._changed.clear()
        due_in_s = self._batcher.due_in_s()
        loop = asyncio.get_running_loop()
        timer = None if due_in_s is None else loop.call_later(due_in_s, self._changed.set)
        await self._changed.wait()
        if timer is not None:
            timer.cancel()

    async def _process(self, batch: Batch) -> None:
        sources = tuple(Source(self._pending[piece.request_id].request, piece) for piece in batch.pieces)
        started = time.monotonic()
        scored = asyncio.get_running_loop().run_in_executor(self._thread, score_pieces, self._scoring, sources)
        await asyncio.wait([scored])  # does not raise: a scorer's error belongs to the callers, not to this loop
        self._count(image_count=batch.image_count, batch_count=1, scoring_s=time.monotonic() - started)
        error = scored.exception()
        if error is None:
            self._deliver(batch, scored.result())
        else:
            self._fail(batch, error)

    def _deliver(self, batch: Batch, parts: Sequence[ScoreReply]) -> None:
        self._count(item_error_count=sum(error is not None for part in parts for error in part.errors))
        for piece, part in zip(batch.pieces, parts, strict=True):
            complete = self._joiner.put(piece, part)
            answer = self._open_answer(piece.request_id)
            if complete is not None and answer is not None:
                answer.set_result(join_replies(complete))

    def _fail(self, batch: Batch, error: BaseException) -> None:
        self._count(failed_batch_count=1)
        for piece in batch.pieces:
            answer = self._open_answer(piece.request_id)
            if answer is not None:
                answer.set_exception(error)

    def _open_answer(self, request_id: int) -> asyncio.Future[ScoreReply] | None:
        """The answer somebody still waits for; None when the caller has failed, gone, or is just being cancelled."""
        pending = self._pending.get(request_id)
        return None if pending is None or pending.answer.done() else pending.answer

    def _count(self, **increments: float) -> None:
        changed = {name: getattr(self._stats, name) + increment for name, increment in increments.items()}
        self._stats = replace(self._stats, **changed)
