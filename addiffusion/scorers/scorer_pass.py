"""One batch of images through several models, and the errors of its items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from addiffusion.errors import PromptError, ScorerError
from addiffusion.poisoned import is_poisoned
from addiffusion.scorers.images import ImageBatch

Compute = Callable[[ImageBatch, Sequence[str]], Tensor]

FAILURES: Final = (RuntimeError, ValueError, LookupError, ArithmeticError, MemoryError, ScorerError, PromptError)
"""What a model may raise on an image or prompt; anything else is a defect and ends the request."""
_NO_MEMORY: Final = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


class NoMemoryError(Exception):
    """The device's memory does not hold a batch of this many rows."""


class ScorerPass:
    """At most ``rows`` images; networks see exactly ``rows``, the last image repeated."""

    def __init__(
        self, images: UInt8[np.ndarray, "n h w 3"], prompts: Sequence[str], *, rows: int, device: torch.device
    ) -> None:
        """One batch.

        Args:
            images: (n, H, W, 3) of at most ``rows`` images.
            prompts: one for each.
            rows: of each network pass.
            device: where the models are.
        """
        self._images, self._prompts = images, tuple(prompts)
        self._rows, self._device = rows, device
        spread = np.minimum(np.arange(rows), len(images) - 1)
        self._padded = ImageBatch.of(images[spread], device)
        self._padded_prompts = tuple(self._prompts[int(row)] for row in spread)
        self._alone: dict[tuple[int, int], ImageBatch] = {}
        self.errors: list[str | None] = [None] * len(images)
        """Per image: None, or why it has no score. The first reason stands."""
        self.culprits: list[str] = []
        """The model behind each error."""

    def compute(
        self, name: str, compute: Compute, *, width: int | None, batched: bool
    ) -> Float32[np.ndarray, " n *width"]:
        """(n,) of a score, or (n, width) of an embedding; rows of images that have none are NaN, with an error.

        Where the batch fails as a whole the images are tried one by one, so that only the culprit has an error.

        Args:
            name: of the model, for errors.
            compute: the model: (rows,) or (rows, width) of images and prompts.
            width: of an embedding; None for a score.
            batched: see ``ScorerSpec.batched``.

        Raises:
            NoMemoryError: the batch needs more memory than there is, and has rows to spare.
            RuntimeError: the device is lost to this process (see ``is_poisoned``), so to every image after this one.
        """
        inner = () if width is None else (width,)
        if batched:
            try:
                values = _fetched(name, compute(self._padded, self._padded_prompts), (self._rows, *inner))
            except FAILURES as error:
                _refuse(error, self._rows)
                values = self._one_by_one(name, compute, self._rows, inner)
        else:
            values = self._one_by_one(name, compute, 1, inner)
        values = values[: len(self._images)]
        finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        for row in np.flatnonzero(~finite):
            self._note(int(row), name, f"Scorer `{name}` returned NaN or infinity for this image; it has no score.")
        return values

    def _one_by_one(
        self, name: str, compute: Compute, copies: int, inner: tuple[int, ...]
    ) -> Float32[np.ndarray, " n *width"]:
        """Each image in ``copies`` rows of its own: a network keeps its batch shape."""
        values = np.full((len(self._images), *inner), np.nan, np.float32)
        for row, prompt in enumerate(self._prompts):
            try:
                result = compute(self._images_of(row, copies), (prompt,) * copies)
                values[row] = _fetched(name, result, (copies, *inner))[0]
            except FAILURES as error:
                _refuse(error, copies)
                reason = error.message if isinstance(error, (ScorerError, PromptError)) else repr(error)
                self._note(row, name, f"Scorer `{name}` failed on this image: {reason}")
        return values

    def _images_of(self, row: int, copies: int) -> ImageBatch:
        key = (row, copies)
        if key not in self._alone:
            self._alone[key] = ImageBatch.of(self._images[np.full(copies, row)], self._device)
        return self._alone[key]

    def _note(self, row: int, name: str, reason: str) -> None:
        if self.errors[row] is None:
            self.errors[row] = reason
            self.culprits.append(name)


def _refuse(error: Exception, rows: int) -> None:
    """Raise what is no error of an item: an image alone in a batch of ``rows`` would fail just the same."""
    if is_poisoned(error):
        raise error
    if rows > 1 and _is_lack_of_memory(error):
        raise NoMemoryError(str(error)) from error


def _is_lack_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one that caused it, says that memory is full."""
    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__
    return False


def _fetched(name: str, values: Tensor, shape: tuple[int, ...]) -> Float32[np.ndarray, " n *width"]:
    """The values on the host. Fetching them waits for the device, so the time of a model is charged to it."""
    if values.shape != shape:
        raise ScorerError(f"scorer `{name}` returned shape {tuple(values.shape)} where {shape} was due.", name=name)
    return values.float().cpu().numpy()
