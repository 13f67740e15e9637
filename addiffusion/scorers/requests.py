"""Scoring requests and replies: checks of their form; cutting and joining by rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Int64

from addiffusion.errors import ContractError
from addiffusion.records import EMBEDDING_NAMES, ScoreReply, ScoreRequest


def check_request(
    request: ScoreRequest, *, names: Collection[str] | None = None, image_size: int | None = None
) -> None:
    """Refuse a malformed request.

    Args:
        request: what was asked.
        names: the score columns there are; None leaves that to whoever scores.
        image_size: pixels per side the scorers take; None takes any.

    Raises:
        ContractError: images are not (n, H, W, 3) uint8 or of another size, there is not one prompt per image, or a
            column or embedding is unknown.
    """
    images = request.images
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ContractError(
            f"Images to score must be (n, H, W, 3) uint8, but are {images.shape} {images.dtype}.", shape=images.shape
        )
    if image_size is not None and images.shape[1:3] != (image_size, image_size):
        raise ContractError(
            f"Images to score are of shape {images.shape}, but the scorers in use take (n, {image_size}, "
            f"{image_size}, 3); scorers.kind=pretrained takes any size.",
            shape=images.shape,
        )
    if len(request.prompts) != len(images):
        raise ContractError(
            f"A scoring request needs one prompt per image, but has {len(request.prompts)} prompts for "
            f"{len(images)} images.",
            prompt_count=len(request.prompts),
            image_count=len(images),
        )
    _check_known("score", request.names, request.names if names is None else names)
    _check_known("embedding", request.embeddings, EMBEDDING_NAMES)


def empty_reply(request: ScoreRequest, *, clip_width: int, dino_width: int) -> ScoreReply:
    """The reply to a request of these columns without images."""
    widths = {"clip": clip_width, "dino": dino_width}
    clip, dino = (np.zeros((0, widths[name] if name in request.embeddings else 0), np.float32) for name in widths)
    return ScoreReply(
        names=request.names,
        values=np.zeros((0, len(request.names)), np.float32),
        clip_embedding=clip,
        dino_embedding=dino,
        errors=(),
    )


def failed_reply(request: ScoreRequest, reason: str, *, clip_width: int, dino_width: int) -> ScoreReply:
    """The reply to a request none of whose images could be scored: NaN throughout.

    Args:
        request: of n images.
        reason: the error of each of them.
        clip_width: e.
        dino_width: f.
    """
    empty = empty_reply(request, clip_width=clip_width, dino_width=dino_width)
    count = len(request.images)
    values, clip, dino = (
        np.full((count, array.shape[1]), np.nan, np.float32)
        for array in (empty.values, empty.clip_embedding, empty.dino_embedding)
    )
    errors = (reason,) * count
    return ScoreReply(names=request.names, values=values, clip_embedding=clip, dino_embedding=dino, errors=errors)


def join_replies(parts: Sequence[ScoreReply]) -> ScoreReply:
    """One reply with the rows of ``parts``, in their order; they answer requests of the same columns."""
    return ScoreReply(
        names=parts[0].names,
        values=np.concatenate([part.values for part in parts]),
        clip_embedding=np.concatenate([part.clip_embedding for part in parts]),
        dino_embedding=np.concatenate([part.dino_embedding for part in parts]),
        errors=tuple(error for part in parts for error in part.errors),
    )


def reply_rows(reply: ScoreReply, rows: Sequence[int] | Int64[np.ndarray, " picked"]) -> ScoreReply:
    """These rows of a reply, in this order, as copies."""
    picked = list(rows)
    return ScoreReply(
        names=reply.names,
        values=reply.values[picked],
        clip_embedding=reply.clip_embedding[picked],
        dino_embedding=reply.dino_embedding[picked],
        errors=tuple(reply.errors[row] for row in picked),
    )


def request_rows(request: ScoreRequest, rows: Sequence[int]) -> ScoreRequest:
    """These rows of a request, in this order."""
    return ScoreRequest(
        images=request.images[list(rows)],
        prompts=tuple(request.prompts[row] for row in rows),
        names=request.names,
        embeddings=request.embeddings,
    )


def _check_known(what: str, asked: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ContractError(
            f"A scoring request asks for the {what} {', '.join(unknown)}, but the scorers in use know "
            f"{', '.join(known)}.",
            unknown=unknown,
        )
