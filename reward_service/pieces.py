"""Joining the pieces of many requests into one pass, and its rows back to their requests: pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from addiffusion.errors import ContractError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.requests import reply_rows
from reward_service.batcher import Piece


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
