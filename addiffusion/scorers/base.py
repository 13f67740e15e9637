"""The ports of scoring (one scorer model; several of them behind one call), and scoring that needs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from addiffusion.errors import RolloutError, ScorerError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, ScoreReply, ScoreRequest

if TYPE_CHECKING:  # clients of the reward service need neither torch nor its seconds of import
    from jaxtyping import Float
    from torch import Tensor

    from addiffusion.scorers.images import ImageBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSpec:
    """Name, unit, range and needs of a scorer."""

    name: str
    """Name of the score column."""
    unit: str
    """Unit in words, e.g. ``cosine`` or ``points of ten``."""
    low: float
    high: float
    """Usual range; infinite where the scale is open."""
    higher_is_better: bool = True
    needs_prompt: bool = True
    """False: the score depends on the image alone."""
    batched: bool = True
    """True: a network that sees a padded batch of fixed shape. False: image by image, without padding."""


@runtime_checkable
class Scorer(Protocol):
    """One score column. Row ``i`` of the result belongs to row ``i`` of the images and depends on no other row."""

    @property
    def spec(self) -> ScorerSpec:
        """Name, unit, range and needs."""
        ...

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) the score of each image for its own prompt; NaN or infinity marks an image that has none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerUsage:
    """Cost of scoring so far in this process, by scorer; embeddings count under ``clip_embedding``, ..."""

    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds spent in each model."""
    error_count: Mapping[str, int] = field(default_factory=dict[str, int])
    """Images each model could not score."""
    cache_hit_count: int = 0
    """Images that were not scored because their scores were known."""
    halved_count: int = 0
    """Times the device's memory did not hold a batch, and batches became half as large."""
    running: str | None = None
    """The model at work at this moment."""


@runtime_checkable
class Metered(Protocol):
    """A ``Scoring`` that keeps account of its scorers."""

    def usage(self) -> ScorerUsage:
        """The account so far; may be asked from any thread."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """Scores images against prompts: in this process, or behind the reward service.

    Scoring is a pure function of image and prompt, so a request may be sent twice.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Every score column a request may ask for."""
        ...

    @property
    def clip_width(self) -> int:
        """Width ``e`` of CLIP image and text embeddings."""
        ...

    @property
    def dino_width(self) -> int:
        """Width ``f`` of DINO features."""
        ...

    def embed_text(self, prompts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
        """(n, e) L2-normalised CLIP text embeddings."""
        ...

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores and embeddings, in the order of the request's images.

        Raises:
            ContractError: the request itself is malformed (shapes, counts, names). A single image or prompt that
                can't be scored is no exception: its row is NaN and its entry in ``errors`` says why.
        """
        ...


class WrappedScoring:
    """Base of a ``Scoring`` in front of another one: the same columns, answered differently."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    @property
    def names(self) -> tuple[str, ...]:
        """Every score column a request may ask for."""
        return self._scoring.names

    @property
    def clip_width(self) -> int:
        """Width ``e`` of CLIP embeddings."""
        return self._scoring.clip_width

    @property
    def dino_width(self) -> int:
        """Width ``f`` of DINO features."""
        return self._scoring.dino_width


class StrictScoring(WrappedScoring):
    """`scorers.on_score_error=stop`: an image that has no score ends the run instead of its own episode."""

    def embed_text(self, prompts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
        """See ``Scoring.embed_text``.

        Raises:
            RolloutError: the scorers gave no answer.
        """
        try:
            return self._scoring.embed_text(prompts)
        except ScorerError as error:
            raise _stopped(error.message) from error

    def score(self, request: ScoreRequest) -> ScoreReply:
        """See ``Scoring.score``.

        Raises:
            RolloutError: an image has no score, or the scorers gave no answer.
        """
        try:
            reply = self._scoring.score(request)
        except ScorerError as error:
            raise _stopped(error.message) from error
        for prompt, error in zip(request.prompts, reply.errors, strict=True):
            if error is not None:
                raise _stopped(f"prompt {prompt!r}: {error}")
        return reply


def _stopped(reason: str) -> RolloutError:
    return RolloutError(
        f"An image has no score ({reason}), and scorers.on_score_error=stop ends the run then; with mask its episode "
        "is dropped, counted and handed out again.",
        reason=reason,
    )


class Unscored:
    """A ``Scoring`` without models, all of whose scores are NaN: for policies that do not look at images, and none."""

    names = (*SCORE_NAMES, *METRIC_NAMES)
    clip_width = 0
    dino_width = 0

    def embed_text(self, prompts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
        """(n, 0) embeddings."""
        return np.zeros((len(prompts), 0), np.float32)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """NaN for every score, without an error: none was asked for."""
        count = len(request.prompts)
        return ScoreReply(
            names=request.names,
            values=np.full((count, len(request.names)), np.nan, np.float32),
            clip_embedding=np.zeros((count, 0), np.float32),
            dino_embedding=np.zeros((count, 0), np.float32),
            errors=(None,) * count,
        )
