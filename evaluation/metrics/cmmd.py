"""CLIP maximum mean discrepancy.

Source: Jayasumana et al., "Rethinking FID", arXiv:2401.09603, with the constants of its reference code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import EvaluationError
from evaluation.metrics.samples import feature_sets

NAME = "cmmd"
SIGMA = 10.0
"""Bandwidth of the Gaussian kernel."""
SCALE = 1000.0
_BLOCK_ROWS = 1024


def cmmd(features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Squared discrepancy of two sets of L2-normalised CLIP embeddings (n, e) and (m, e), times SCALE; 0 is equal.

    The biased (V-statistic) estimate of the reference code, in float64: three means near 1 cancel, which costs fp32
    four of its digits.

    Raises:
        EvaluationError: embeddings of other than unit length, widths that differ, or values that are not finite.
    """
    ours, theirs = feature_sets(NAME, features, reference)
    for rows in (ours, theirs):
        _check_unit_length(rows)
    within = _mean_kernel(ours, ours) + _mean_kernel(theirs, theirs)
    return SCALE * (within - 2 * _mean_kernel(ours, theirs))


def _mean_kernel(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Mean of exp(-|x - y|^2 / (2 sigma^2)) over all pairs, a block of rows at a time."""
    squares = (right**2).sum(axis=1)
    total = 0.0
    for start in range(0, len(left), _BLOCK_ROWS):
        block = left[start : start + _BLOCK_ROWS]
        distances = (block**2).sum(axis=1)[:, None] + squares - 2 * block @ right.T
        total += float(np.exp(-distances / (2 * SIGMA**2)).sum())
    return total / (len(left) * len(right))


def _check_unit_length(rows: NDArray[np.float64]) -> None:
    lengths = np.linalg.norm(rows, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        raise EvaluationError(
            f"{NAME} needs embeddings of length 1, got lengths from {lengths.min():.4g} to {lengths.max():.4g}: divide "
            "each row by its norm.",
            metric=NAME,
        )
