"""Cutting scoring requests into pieces and joining the pieces' replies: pure functions on records."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from addiffusion.errors import ContractError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from reward_service.batcher import Piece


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of a request that go into one batch."""

    request: ScoreRequest
    piece: Piece


def check_request(request: ScoreRequest) -> None:
    """Refuse what would spoil a batch.

    Raises:
        ContractError: images are not (n, H, W, 3) uint8, or there is not one prompt per image.
    """
    images = request.images
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ContractError(
            f"Images to score must be (n, H, W, 3) uint8, but are {images.shape} {images.dtype}.", shape=images.shape
        )
    if len(request.prompts) != len(images):
        raise ContractError(
            f"A scoring request needs one prompt per image, but has {len(request.prompts)} prompts for "
            f"{len(images)} images.",
            prompt_count=len(request.prompts),
            image_count=len(images),
        )


def group_of(request: ScoreRequest) -> Hashable:
    """Requests of one group may share a batch: same score columns, same image size."""
    return request.names, request.images.shape[1:]


def score_pieces(scoring: Scoring, sources: Sequence[Source]) -> tuple[ScoreReply, ...]:
    """Score rows of several requests (of one group) in one pass; one reply per source.

    Raises:
        ContractError: the scorers answered with another number of rows or other columns than asked for.
    """
    merged = _merge(sources)
    reply = scoring.score(merged)
    if len(reply.values) != len(merged.images) or reply.names != merged.names:
        raise ContractError(
            f"The scorers were asked for {merged.names} of {len(merged.images)} images, but answered with "
            f"{reply.names} of {len(reply.values)}."
        )
    stops = np.cumsum([source.piece.image_count for source in sources]).tolist()
    return tuple(_rows(reply, start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))


def join_replies(parts: Sequence[ScoreReply]) -> ScoreReply:
    """One reply with the rows of ``parts``, in their order."""
    return ScoreReply(
        names=parts[0].names,
        values=np.concatenate([part.values for part in parts]),
        clip_embedding=np.concatenate([part.clip_embedding for part in parts]),
        dino_embedding=np.concatenate([part.dino_embedding for part in parts]),
        errors=tuple(error for part in parts for error in part.errors),
    )


def empty_reply(request: ScoreRequest, *, clip_width: int, dino_width: int) -> ScoreReply:
    """The reply to a request without images."""
    return ScoreReply(
        names=request.names,
        values=np.zeros((0, len(request.names)), np.float32),
        clip_embedding=np.zeros((0, clip_width), np.float32),
        dino_embedding=np.zeros((0, dino_width), np.float32),
        errors=(),
    )


def _merge(sources: Sequence[Source]) -> ScoreRequest:
    """The sources' rows as one request. Its images are a fresh array: those from shared memory are read-only."""
    spans = [(source.request, slice(source.piece.start, source.piece.stop)) for source in sources]
    return ScoreRequest(
        images=np.concatenate([request.images[span] for request, span in spans]),
        prompts=tuple(prompt for request, span in spans for prompt in request.prompts[span]),
        names=sources[0].request.names,
    )


def _rows(reply: ScoreReply, start: int, stop: int) -> ScoreReply:
    span = slice(start, stop)
    return ScoreReply(
        names=reply.names,
        values=reply.values[span],
        clip_embedding=reply.clip_embedding[span],
        dino_embedding=reply.dino_embedding[span],
        errors=reply.errors[span],
    )
