"""The reward service without Ray: many asyncio callers, one scoring thread, batches across callers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from addiffusion.config import ScorersSection
from addiffusion.errors import ScorerError
from addiffusion.metrics import Meters, NoMeters
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Metered, ScorerUsage, Scoring, WrappedScoring
from addiffusion.scorers.requests import check_request, empty_reply, failed_reply, join_replies
from reward_service.batcher import (
    Batch,
    Batcher,
    Joiner,
    Source,
    group_of,
    merged_request,
    score_pieces,
    split_reply,
)
from reward_service.losses import End, Losses, end_if_device_lost
from reward_service.scoring_thread import HungError, ScoringThread
from reward_service.stats import ServiceStats, Tally

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Pending:
    request: ScoreRequest
    answer: asyncio.Future[ScoreReply]


class RewardService(WrappedScoring):
    """Batches the scoring requests of many callers over one ``Scoring``.

    All coroutines belong to one event loop. Scoring has a thread of its own, so the loop goes on accepting meanwhile.
    At most ``queue_images`` images wait; callers beyond that are held back in the order they came.
    A scorer that reports its device as lost ends the process: whoever supervises it starts another one.
    """

    def __init__(
        self,
        scoring: Scoring,
        section: ScorersSection,
        meters: Meters | None = None,
        *,
        losses: Losses | None = None,
        end: End | None = None,
    ) -> None:
        """A service that waits for its first request.

        Args:
            scoring: what scores, on a thread of its own.
            section: sizes of batches and queue, and deadlines.
            meters: carries its metrics; None carries none.
            losses: counts lost devices beyond this process; None counts none.
            end: ends this process; None does it for good.
        """
        super().__init__(scoring)
        self._losses, self._end = losses, end
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
        self._thread = ScoringThread(deadline_s=section.pass_timeout_s)
        self._runner: asyncio.Task[None] | None = None
        self._tally = Tally(meters or NoMeters())
        self._scored_image_count = 0

    def stats(self) -> ServiceStats:
        """The counters so far."""
        return self._tally.stats(waiting_image_count=self._batcher.waiting_image_count)

    @property
    def load(self) -> int:
        """Images that wait or are being scored, by which clients choose a replica."""
        return self._batcher.waiting_image_count + self._scored_image_count

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """Score the images of one caller, in batches with whoever else is waiting.

        Raises:
            ContractError: the request is malformed; other callers are not affected.
            ScorerError: no answer within ``scorers.timeout_s``.
        """
        check_request(request)
        self._tally.request()
        if len(request.images) == 0:
            return empty_reply(request, clip_width=self.clip_width, dino_width=self.dino_width)
        return await self._in_time(self._answer(request), f"{len(request.images)} images")

    async def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, e) L2-normalised CLIP text embeddings, computed between two batches.

        Raises:
            ScorerError: no answer within ``scorers.timeout_s``.
        """
        self._tally.prompts(len(prompts))
        return await self._in_time(self._embed_text(prompts), f"{len(prompts)} prompts")

    async def close(self) -> None:
        """Stop scoring; callers that still wait are cancelled."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        for pending in self._pending.values():
            pending.answer.cancel()
        self._thread.close()

    async def _in_time(self, result: Awaitable[Result], what: str) -> Result:
        limit = asyncio.timeout(self._section.timeout_s)
        try:
            async with limit:
                return await result
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._tally.late()
            raise ScorerError(
                f"No answer for {what} within scorers.timeout_s={self._section.timeout_s:g} s while "
                f"{self._batcher.waiting_image_count} images wait; raise the limit, or give the scorers more compute.",
                timeout_s=self._section.timeout_s,
            ) from error

    async def _embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        try:
            call = await self._thread.run(self._scoring.embed_text, prompts)
        except HungError as error:
            raise ScorerError(self._hung_sentence("clip", f"{len(prompts)} prompts")) from error
        self._end_if_poisoned(call.exception())
        return call.result()

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
            self._tally.held_back()
        async with self._line:
            while not self._has_room_for(request):
                self._room.clear()
                await self._room.wait()
            self._pending[request_id] = _Pending(request, asyncio.get_running_loop().create_future())
            self._joiner.expect(request_id, len(request.images))
            self._batcher.add(request_id, group_of(request), len(request.images))
            self._tally.queue(self._batcher.waiting_image_count)
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
        self._scored_image_count = batch.image_count
        started = time.monotonic()
        try:
            call = await self._thread.run(score_pieces, self._scoring, sources)
        except HungError:
            call = None
        self._scored_image_count = 0
        seconds = time.monotonic() - started
        self._tally.scored(batch.image_count, seconds=seconds, waited_s=batch.waited_s, usage=self._usage())
        self._tally.queue(self._batcher.waiting_image_count)
        if call is None:
            self._deliver(batch, self._given_up(batch, sources))
        elif error := call.exception():  # whatever else it is belongs to the callers; the service goes on
            self._end_if_poisoned(error)
            self._fail(batch, error)
        else:
            self._deliver(batch, call.result())
            if self._losses is not None:
                self._losses.clear()

    def _end_if_poisoned(self, error: BaseException | None) -> None:
        """End the process before anybody gets an answer: those who wait are answered by the next one."""
        if error is not None:
            end_if_device_lost(error, self._losses, what="ends its process", end=self._end)

    def _given_up(self, batch: Batch, sources: Sequence[Source]) -> Sequence[ScoreReply]:
        """Replies without scores to a pass that hangs; each of its images has the reason as its own error."""
        scorer = self._usage().running or "unknown"
        self._tally.hung(scorer, batch.image_count)
        reason = self._hung_sentence(scorer, f"{batch.image_count} images")
        nothing = failed_reply(merged_request(sources), reason, clip_width=self.clip_width, dino_width=self.dino_width)
        return split_reply(nothing, sources)

    def _hung_sentence(self, scorer: str, what: str) -> str:
        return (
            f"Scorer `{scorer}` did not finish {what} within scorers.pass_timeout_s={self._section.pass_timeout_s:g} s "
            "and was given up; find out why it hangs, or raise the limit."
        )

    def _usage(self) -> ScorerUsage:
        return self._scoring.usage() if isinstance(self._scoring, Metered) else ScorerUsage()

    def _deliver(self, batch: Batch, parts: Sequence[ScoreReply]) -> None:
        self._tally.item_errors(sum(error is not None for part in parts for error in part.errors))
        for piece, part in zip(batch.pieces, parts, strict=True):
            complete = self._joiner.put(piece, part)
            answer = self._open_answer(piece.request_id)
            if complete is not None and answer is not None:
                answer.set_result(join_replies(complete))

    def _fail(self, batch: Batch, error: BaseException) -> None:
        self._tally.failed()
        for piece in batch.pieces:
            answer = self._open_answer(piece.request_id)
            if answer is not None:
                answer.set_exception(error)

    def _open_answer(self, request_id: int) -> asyncio.Future[ScoreReply] | None:
        """The answer somebody still waits for; None when the caller has failed, gone, or is just being cancelled."""
        pending = self._pending.get(request_id)
        return None if pending is None or pending.answer.done() else pending.answer
