"""What a metric takes, checked before anything is computed: shapes, counts, finite numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import EvaluationError


def check_count(metric: str, what: str, count: int, minimum: int) -> None:
    """Refuse too few samples, and say how many are needed.

    Args:
        metric: its name in the error.
        what: the samples in words: ``images``.
        count: how many there are.
        minimum: how many the metric needs.

    Raises:
        EvaluationError: ``count`` is below ``minimum``.
    """
    if count < minimum:
        raise EvaluationError(
            f"{metric} needs at least {minimum} {what}, got {count}: give {minimum - count} more.",
            metric=metric,
            count=count,
            minimum=minimum,
        )


def check_pairs(metric: str, count: int, other_count: int) -> None:
    """Refuse sides of different length where row i of one belongs to row i of the other.

    Raises:
        EvaluationError: the counts differ.
    """
    if count != other_count:
        raise EvaluationError(
            f"{metric} compares image by image, got {count} images and {other_count} to compare them with: give both "
            "sides the same prompts and seeds, in the same order.",
            metric=metric,
            count=count,
            other_count=other_count,
        )


def feature_rows(metric: str, features: NDArray[np.generic]) -> NDArray[np.float64]:
    """``features`` (n, f) in float64.

    Raises:
        EvaluationError: not two axes, nothing in them, or a value that is not finite.
    """
    if features.ndim != 2 or features.size == 0:
        raise EvaluationError(
            f"{metric} needs features of shape (images, width), got {features.shape}: give one row per image.",
            metric=metric,
            shape=features.shape,
        )
    rows = features.astype(np.float64)
    broken = int((~np.isfinite(rows)).any(axis=1).sum())
    if broken:
        raise EvaluationError(
            f"{metric}: {broken} of {len(rows)} rows of features are not finite; leave out images whose model failed.",
            metric=metric,
            broken=broken,
        )
    return rows


def feature_sets(
    metric: str, features: NDArray[np.generic], reference: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two sets (n, f) and (m, f) of features of the same model, in float64.

    Raises:
        EvaluationError: a set is no table of finite numbers, or the widths differ.
    """
    ours, theirs = feature_rows(metric, features), feature_rows(metric, reference)
    if ours.shape[1] != theirs.shape[1]:
        raise EvaluationError(
            f"{metric}: features are {ours.shape[1]} wide and reference features {theirs.shape[1]}; take both from "
            "the same model.",
            metric=metric,
            width=ours.shape[1],
            reference_width=theirs.shape[1],
        )
    return ours, theirs


def check_images(metric: str, images: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    """Refuse what is not two batches (n, H, W, 3) of uint8 images of one size.

    Raises:
        EvaluationError: wrong type or shape, sizes or counts that differ.
    """
    for batch in (images, other):
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
            raise EvaluationError(
                f"{metric} needs uint8 images of shape (images, height, width, 3), got {batch.dtype} {batch.shape}.",
                metric=metric,
                shape=batch.shape,
            )
    check_pairs(metric, len(images), len(other))
    if images.shape != other.shape:
        raise EvaluationError(
            f"{metric}: images are {images.shape[1:3]} pixels and those to compare them with {other.shape[1:3]}; "
            "bring both to one size first.",
            metric=metric,
            shape=images.shape,
            other_shape=other.shape,
        )
