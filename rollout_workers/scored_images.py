"""Images of a tick that somebody must see, and the scorers' answer to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from addiffusion.observation.clip import ImageScores
from addiffusion.records import EMBEDDING_NAMES, ScoreReply, ScoreRequest, Ticket
from addiffusion.sampling.engine import Engine
from rollout_workers.async_scorer import AsyncScorer
from rollout_workers.metrics import Stopwatch

Images: TypeAlias = dict[int, NDArray[np.uint8]]
"""Image (H, W, 3) by slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Images of one tick and the scorers' answer to come."""

    asked: tuple[int, ...]
    """Slots that wait for the policy."""
    previews: Images
    finals: Images
    """Images that are returned, unless the policy goes on."""
    judged_slots: tuple[int, ...]
    """Slots in the order of the replies."""
    reply: Future[ScoreReply] | None
    metrics: Future[ScoreReply] | None
    """Answer to the request of wanted, of the same images."""

    @property
    def slots(self) -> set[int]:
        """All slots it is about."""
        return {*self.asked, *self.judged_slots}


def at_once(asked: Sequence[int], previews: Images) -> Pending:
    """Slots that wait for the policy, which waits for no scores of them."""
    return Pending(asked=tuple(asked), previews=previews, finals={}, judged_slots=(), reply=None, metrics=None)


class ScoredImages:
    """Decodes images of slots and hands them to the scorers."""

    def __init__(
        self,
        engine: Engine,
        scorer: AsyncScorer,
        timed: Stopwatch,
        *,
        every_decision: bool,
        embeddings: tuple[str, ...],
    ) -> None:
        """Nothing is decoded yet.

        Args:
            engine: its slots.
            scorer: scores of their images.
            timed: seconds of each stage.
            every_decision: each of them sees its image: the very one that is returned, where previews cost as much.
            embeddings: what the policy needs beside the scores.
        """
        self._engine, self._scorer, self._timed = engine, scorer, timed
        self._embeddings = embeddings
        # Where decisions see the very images that are returned, one decoder pass serves both.
        self._same_images = every_decision and not engine.previews
        self._all_seen = every_decision

    def decode(self, watched: Sequence[int], done: Sequence[int]) -> tuple[Images, Images]:
        """(previews, returned images) of slots; at fixed batch shapes, so that no image depends on another."""
        if not (watched or done):
            return {}, {}
        with self._timed("decode"):
            if self._same_images:
                slots = [*watched, *done]
                images = dict(zip(slots, self._engine.decode(slots), strict=True))
                return {slot: images[slot] for slot in watched}, {slot: images[slot] for slot in done}
            seen = self._engine.preview(watched, alone=not self._all_seen) if watched else ()
            finals = {slot: self._engine.decode_one(slot) for slot in done}
            return dict(zip(watched, seen, strict=True)), finals

    def ask(
        self, due: Sequence[int], done: Sequence[int], shown: tuple[Images, Images], tickets: Mapping[int, Ticket]
    ) -> Pending:
        """Hand images to the scorers, without waiting for them.

        Args:
            due: slots that wait for the policy, which waits for their scores.
            done: slots whose image is returned.
            shown: previews of the first, images of the second.
            tickets: by slot.
        """
        previews, finals = shown
        images = {**previews, **finals}
        judged = (*due, *done)
        return Pending(
            asked=tuple(due),
            previews=previews,
            finals=images if self._same_images else finals,
            judged_slots=judged,
            reply=self._scores(judged, images, tickets, embeddings=EMBEDDING_NAMES if done else self._embeddings),
            metrics=self._metrics(judged, images, tickets),
        )

    def again(self, pending: Pending, back: Sequence[int]) -> Pending:
        """The same with what slots show that have come back to an earlier attempt."""
        if not back:
            return pending
        previews, _ = self.decode(back, ())
        finals = {slot: image for slot, image in previews.items() if slot in pending.finals}
        return replace(pending, previews=pending.previews | previews, finals=pending.finals | finals)

    def scores_of(self, pending: Pending) -> tuple[dict[int, ImageScores], dict[int, str]]:
        """Scores by slot, once they are there; and why some have none."""
        if pending.reply is None:
            return {}, {}
        with self._timed("wait"):
            reply = pending.reply.result()
            metrics = None if pending.metrics is None else pending.metrics.result().values
        rows = [*enumerate(pending.judged_slots)]
        failed = {slot: error for row, slot in rows if (error := reply.errors[row]) is not None}
        alone = () if self._embeddings else pending.asked  # whoever else was scored with them
        judged: dict[int, ImageScores] = {}
        for row, slot in rows:
            if slot not in failed:
                scores = ImageScores.of(reply, row, metrics=None if metrics is None else metrics[row])
                judged[slot] = scores.without_embeddings() if slot in alone else scores
        return judged, failed

    def _scores(
        self, slots: Sequence[int], images: Images, tickets: Mapping[int, Ticket], *, embeddings: tuple[str, ...]
    ) -> Future[ScoreReply] | None:
        if not slots:
            return None
        prompts = tuple(tickets[slot].prompt.text for slot in slots)
        shown = np.stack([images[slot] for slot in slots])
        return self._scorer.submit(ScoreRequest(images=shown, prompts=prompts, embeddings=embeddings))

    def _metrics(
        self, slots: Sequence[int], images: Images, tickets: Mapping[int, Ticket]
    ) -> Future[ScoreReply] | None:
        """Metrics of all slots if any of them records its stops: tickets of one batch do so alike."""
        wanted = filter(None, (tickets[slot].record_stops for slot in slots))
        names = next((one.metrics for one in wanted), ())
        if not names:
            return None
        prompts = tuple(tickets[slot].prompt.text for slot in slots)
        shown = np.stack([images[slot] for slot in slots])
        return self._scorer.submit(ScoreRequest(images=shown, prompts=prompts, names=names, embeddings=()))
