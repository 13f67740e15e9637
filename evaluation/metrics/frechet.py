"""Fréchet distance of two sets of features: FID with those of InceptionV3, FD-DINO with those of DINO.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", arXiv:1706.08500, Eq. 6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evaluation.metrics.samples import check_count, feature_sets


def frechet_distance(metric: str, features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Fréchet distance of the Gaussians fitted to ``features`` (n, f) and ``reference`` (m, f); 0 is equal.

    It falls as n grows, so compare sets of one size only.

    Args:
        metric: its name in errors.
        features: of the images to be judged.
        reference: of those to compare them with.

    Raises:
        EvaluationError: a set has at most f rows (its covariance has no full rank), widths differ, or values are not
            finite.
    """
    ours, theirs = feature_sets(metric, features, reference)
    width = ours.shape[1]
    check_count(metric, f"images for features of width {width}", len(ours), width + 1)
    check_count(metric, f"reference images for features of width {width}", len(theirs), width + 1)
    return gaussian_distance(
        ours.mean(axis=0), _covariance(ours), other_mean=theirs.mean(axis=0), other_covariance=_covariance(theirs)
    )


def gaussian_distance(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    other_mean: NDArray[np.float64],
    other_covariance: NDArray[np.float64],
) -> float:
    """Squared Wasserstein-2 distance of two Gaussians.

    tr (A B)^1/2 is taken as the root eigenvalues of A^1/2 B A^1/2, which is symmetric: no complex parts to cut off, as
    there are with a root of A B.

    Args:
        mean: (f,) of the one.
        covariance: (f, f), symmetric.
        other_mean: (f,) of the other.
        other_covariance: (f, f), symmetric.
    """
    values, vectors = linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = linalg.eigvalsh(root @ other_covariance @ root)
    cross = np.sqrt(np.maximum(product, 0)).sum()
    offset = mean - other_mean
    distance = offset @ offset + np.trace(covariance) + np.trace(other_covariance) - 2 * cross
    return max(float(distance), 0.0)


def _covariance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(f, f), unbiased as in the reference code."""
    return np.atleast_2d(np.cov(rows, rowvar=False))
