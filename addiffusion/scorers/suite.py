"""All scorers of one process behind the Scoring port, and the account of what each of them costs."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from addiffusion.cancellation import committing
from addiffusion.errors import ConfigError
from addiffusion.records import EMBEDDING_NAMES, ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scorer, ScorerUsage
from addiffusion.scorers.clip import ClipTower
from addiffusion.scorers.dino import DinoFeatures
from addiffusion.scorers.images import ImageBatch
from addiffusion.scorers.requests import check_request, empty_reply, join_replies
from addiffusion.scorers.scorer_pass import NoMemoryError, ScorerPass

_log = logging.getLogger(__name__)


class ScorerSuite:
    """Scores in this process: one CLIP forward serves embedding, CLIP score and aesthetic.

    Every network sees batches of exactly ``batch_images`` rows (short ones are padded with a repeated row), so on
    a CPU each row is bitwise independent of its neighbours and of the size of the request. A model runs only when a
    request asks for it. Where the device's memory does not hold a batch, all batches from then on have half the rows:
    a row is then independent as before, but its last bits may be others than at the configured size.
    """

    def __init__(
        self,
        *,
        clip: ClipTower,
        dino: DinoFeatures,
        scorers: Sequence[Scorer],
        device: torch.device,
        batch_images: int,
        image_size: int | None = None,
    ) -> None:
        """A suite of loaded models.

        Args:
            clip: gives the CLIP embeddings of images and texts.
            dino: gives the DINO features.
            scorers: one per score column, by distinct names.
            device: where the models are.
            batch_images: rows of every network pass.
            image_size: the only size of image the models take; None takes any.
        """
        self.clip = clip
        self.scorers = {scorer.spec.name: scorer for scorer in scorers}
        self._dino = dino
        self.device = device
        self._batch_images = batch_images
        self.image_size = image_size
        self._account = Account()
        self._embedders: dict[str, tuple[Callable[[ImageBatch], Tensor], int]] = {
            "clip": (clip.embed_images, clip.width),
            "dino": (dino.embed_images, dino.width),
        }

    def add(self, scorer: Scorer) -> None:
        """Take one more score column.

        Raises:
            ConfigError: there is one of that name.
        """
        name = scorer.spec.name
        if name in self.scorers:
            raise ConfigError(
                f"scorers.extra has a scorer called {name!r}, but there is one of that name already; the names taken "
                f"are {', '.join(self.scorers)}.",
                name=name,
            )
        self.scorers[name] = scorer

    def with_batch_images(self, batch_images: int) -> ScorerSuite:
        """The same models in passes of other rows, with an account of its own."""
        return ScorerSuite(
            clip=self.clip,
            dino=self._dino,
            scorers=tuple(self.scorers.values()),
            device=self.device,
            batch_images=batch_images,
            image_size=self.image_size,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every score column a request may ask for."""
        return tuple(self.scorers)

    @property
    def clip_width(self) -> int:
        """Width ``e`` of CLIP embeddings."""
        return self.clip.width

    @property
    def dino_width(self) -> int:
        """Width ``f`` of DINO features."""
        return self._dino.width

    def usage(self) -> ScorerUsage:
        """Seconds and errors by scorer so far."""
        return self._account.usage()

    def embed_text(self, prompts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
        """(n, e) L2-normalised CLIP text embeddings; each prompt is computed once and remembered."""
        return self.clip.embed_texts(prompts).cpu().numpy()

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores, embeddings and per-item errors in the order of the request's images.

        Raises:
            ContractError: images are not (n, H, W, 3) uint8 of a size the models take, counts differ, or a score name
                is unknown.
        """
        check_request(request, names=self.scorers, image_size=self.image_size)
        passes = [empty_reply(request, clip_width=self.clip_width, dino_width=self.dino_width)]
        at = 0
        while at < len(request.images):
            passes.append(self._fitting_pass(request, at))
            at += len(passes[-1].errors)
        return join_replies(passes)

    def _fitting_pass(self, request: ScoreRequest, at: int) -> ScoreReply:
        """A pass from row ``at``, of as many rows as the device's memory holds."""
        while True:
            rows = self._batch_images
            try:
                return self._pass(request, slice(at, at + rows))
            except NoMemoryError as error:
                reason = str(error).split("\n", maxsplit=1)[0]
            self._halve(rows, reason)  # outside of the handler, whose traceback keeps the batch in memory

    def _halve(self, rows: int, reason: str) -> None:
        with committing():
            self._batch_images = rows // 2
        self._account.halved()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        _log.warning(
            "The scorers ran out of memory on %d images (%s): from now on they take %d at a time; set "
            "scorers.batch_images=%d to start so.",
            rows,
            reason,
            rows // 2,
            rows // 2,
        )

    def _pass(self, request: ScoreRequest, span: slice) -> ScoreReply:
        images, prompts = request.images[span], request.prompts[span]
        work = ScorerPass(images, prompts, rows=self._batch_images, device=self.device)
        columns = [self._column(work, name) for name in request.names]
        embeddings = {name: self._embedding(work, name, wanted=name in request.embeddings) for name in EMBEDDING_NAMES}
        values = np.stack(columns, axis=1) if columns else np.zeros((len(images), 0), np.float32)
        values[[error is not None for error in work.errors]] = np.nan  # no part of a broken item may be used
        self._account.blame(work.culprits)
        return ScoreReply(
            names=request.names,
            values=values,
            clip_embedding=embeddings["clip"],
            dino_embedding=embeddings["dino"],
            errors=tuple(work.errors),
        )

    def _column(self, work: ScorerPass, name: str) -> Float32[np.ndarray, " n"]:
        scorer = self.scorers[name]
        with self._account.charge(name):
            return work.compute(name, scorer.score, width=None, batched=scorer.spec.batched)

    def _embedding(self, work: ScorerPass, name: str, *, wanted: bool) -> Float32[np.ndarray, "n width"]:
        if not wanted:
            return np.zeros((len(work.errors), 0), np.float32)
        embed, width = self._embedders[name]
        with self._account.charge(f"{name}_embedding"):
            return work.compute(f"{name}_embedding", lambda images, _: embed(images), width=width, batched=True)


class Account:
    """Seconds and errors of each model of a suite. Written by the scoring thread, read by any.

    Shared work, such as the CLIP forward, is charged to the column that asks for it first.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._errors: Counter[str] = Counter()
        self._halved_count = 0
        self._running: str | None = None

    @contextmanager
    def charge(self, name: str) -> Generator[None]:
        """Charge the time of the block to ``name``."""
        started = time.perf_counter()
        with committing():
            self._running = name
        try:
            yield
        finally:
            with committing():
                self._running = None
                self._seconds[name] += time.perf_counter() - started

    def blame(self, names: Iterable[str]) -> None:
        """Count one error for each name."""
        with committing():
            self._errors.update(names)

    def halved(self) -> None:
        """Count one pass that ran out of memory."""
        with committing():
            self._halved_count += 1

    def usage(self) -> ScorerUsage:
        """Seconds and errors by model so far."""
        return ScorerUsage(
            seconds=dict(self._seconds),
            error_count=dict(self._errors),
            halved_count=self._halved_count,
            running=self._running,
        )
