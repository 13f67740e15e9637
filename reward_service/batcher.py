"""Batches of images from the requests of many callers: how they are cut, scored in one pass, and joined again.

Requests of any size come in; batches of at most ``max_images`` go out. A request may be cut over several batches and a
batch may hold pieces of many requests. Only requests of one group (same score names, same image size) share a batch.
Bookkeeping and pure functions: no threads, and no clock but the one that is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from addiffusion.errors import ContractError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.requests import reply_rows

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows ``start`` up to ``stop`` of one request."""

    request_id: int
    start: int
    stop: int

    @property
    def image_count(self) -> int:
        """Rows of this piece."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pieces to be scored in one pass, in this order."""

    group: Hashable
    pieces: tuple[Piece, ...]
    waited_s: float
    """How long the oldest of the requests has waited."""

    @property
    def image_count(self) -> int:
        """Images of all pieces."""
        return sum(piece.image_count for piece in self.pieces)


@dataclass(slots=True, kw_only=True)
class _Waiting:
    request_id: int
    order: int
    arrived_s: float
    next_row: int
    rows: int

    @property
    def left(self) -> int:
        return self.rows - self.next_row


class Batcher:
    """Waiting requests by group: first come, first served, within and between groups.

    A group is ready when it fills a batch or when its oldest request has waited ``max_wait_s``; of the ready groups
    the one with the oldest request goes first, so none starves.
    """

    def __init__(self, *, max_images: int, max_wait_s: float, clock: Callable[[], float]) -> None:
        self._max_images = max_images
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        self._order = 0

    @property
    def waiting_image_count(self) -> int:
        """Images that are in no batch yet."""
        return sum(waiting.left for queue in self._queues.values() for waiting in queue)

    def add(self, request_id: int, group: Hashable, image_count: int) -> None:
        """Queue a request of one image or more.

        Args:
            request_id: another one for each request.
            group: see ``group_of``.
            image_count: its rows.

        Raises:
            ContractError: the request is empty.
        """
        if image_count < 1:
            raise ContractError(f"Request {request_id} has {image_count} images; only requests with images are queued.")
        self._order += 1
        waiting = _Waiting(
            request_id=request_id, order=self._order, arrived_s=self._clock(), next_row=0, rows=image_count
        )
        self._queues.setdefault(group, deque()).append(waiting)

    def drop(self, request_id: int) -> None:
        """Forget what still waits of a request; unknown ids are ignored (it may be scored already)."""
        for group in list(self._queues):
            kept = deque(waiting for waiting in self._queues[group] if waiting.request_id != request_id)
            self._keep(group, kept)

    def next_batch(self) -> Batch | None:
        """The batch to score now, or None while it pays to wait."""
        ready = [group for group in self._queues if self._due_at_s(group) <= self._clock()]
        if not ready:
            return None
        return self._take(min(ready, key=lambda group: self._queues[group][0].order))

    def due_in_s(self) -> float | None:
        """Seconds until ``next_batch`` has one without further requests; None when nothing waits."""
        if not self._queues:
            return None
        return max(0.0, min(map(self._due_at_s, self._queues)) - self._clock())

    def _due_at_s(self, group: Hashable) -> float:
        queue = self._queues[group]
        full = sum(waiting.left for waiting in queue) >= self._max_images
        return queue[0].arrived_s + (0.0 if full else self._max_wait_s)

    def _take(self, group: Hashable) -> Batch:
        queue, pieces, room = self._queues[group], list[Piece](), self._max_images
        waited_s = self._clock() - queue[0].arrived_s
        while queue and room:
            head = queue[0]
            stop = min(head.rows, head.next_row + room)
            pieces.append(Piece(request_id=head.request_id, start=head.next_row, stop=stop))
            room -= stop - head.next_row
            head.next_row = stop
            if not head.left:
                queue.popleft()
        self._keep(group, queue)
        return Batch(group=group, pieces=tuple(pieces), waited_s=waited_s)

    def _keep(self, group: Hashable, queue: deque[_Waiting]) -> None:
        if queue:
            self._queues[group] = queue
        else:
            self._queues.pop(group, None)


class Joiner(Generic[Part]):
    """Results of the pieces of cut requests, until each request is complete."""

    def __init__(self) -> None:
        self._missing: dict[int, int] = {}
        self._parts: dict[int, dict[int, Part]] = {}

    def expect(self, request_id: int, image_count: int) -> None:
        """Announce a request before its first piece is scored."""
        self._missing[request_id] = image_count
        self._parts[request_id] = {}

    def put(self, piece: Piece, part: Part) -> list[Part] | None:
        """Take the result of one piece; all parts in row order once the request is complete, None before.

        A piece of a request that was forgotten is ignored.
        """
        if piece.request_id not in self._missing:
            return None
        self._parts[piece.request_id][piece.start] = part
        self._missing[piece.request_id] -= piece.image_count
        if self._missing[piece.request_id]:
            return None
        parts = self._parts[piece.request_id]
        self.forget(piece.request_id)
        return [parts[start] for start in sorted(parts)]

    def forget(self, request_id: int) -> None:
        """Drop what has come in of a request; unknown ids are ignored."""
        self._missing.pop(request_id, None)
        self._parts.pop(request_id, None)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of a request that go into one batch."""

    request: ScoreRequest
    piece: Piece


def group_of(request: ScoreRequest) -> Hashable:
    """Requests of one group may share a batch: same columns, same image size."""
    return request.names, request.embeddings, request.images.shape[1:]


def score_pieces(scoring: Scoring, sources: Sequence[Source]) -> tuple[ScoreReply, ...]:
    """Score rows of several requests (of one group) in one pass; one reply per source.

    Raises:
        ContractError: the scorers answered with another number of rows or other columns than asked for.
    """
    merged = merged_request(sources)
    reply = scoring.score(merged)
    if len(reply.values) != len(merged.images) or reply.names != merged.names:
        raise ContractError(
            f"The scorers were asked for {merged.names} of {len(merged.images)} images, but answered with "
            f"{reply.names} of {len(reply.values)}."
        )
    return split_reply(reply, sources)


def split_reply(reply: ScoreReply, sources: Sequence[Source]) -> tuple[ScoreReply, ...]:
    """The rows of a pass, cut up by the sources they belong to."""
    stops = np.cumsum([source.piece.image_count for source in sources]).tolist()
    return tuple(reply_rows(reply, range(start, stop)) for start, stop in zip([0, *stops[:-1]], stops, strict=True))


def merged_request(sources: Sequence[Source]) -> ScoreRequest:
    """The sources' rows as one request. Its images may be the caller's own and, in shared memory, read-only."""
    spans = [(source.request, slice(source.piece.start, source.piece.stop)) for source in sources]
    images = [request.images[span] for request, span in spans]
    return ScoreRequest(
        images=images[0] if len(images) == 1 else np.concatenate(images),
        prompts=tuple(prompt for request, span in spans for prompt in request.prompts[span]),
        names=sources[0].request.names,
        embeddings=sources[0].request.embeddings,
    )
