"""Fréchet inception distance.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", arXiv:1706.08500, Eq. 6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evaluation.metrics.samples import check_count, feature_sets

NAME = "fid"


def fid(features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Fréchet distance of the Gaussians fitted to ``features`` (n, f) and ``reference`` (m, f); 0 is equal.

    With InceptionV3 pool features (f = 2048) this is FID; with others it is a distance of its own scale. FID falls as n
    grows, so compare sets of one size only.

    Raises:
        EvaluationError: a set has at most f rows (its covariance has no full rank), widths differ, or values are not
            finite.
    """
    ours, theirs = feature_sets(NAME, features, reference)
    width = ours.shape[1]
    check_count(NAME, f"images for features of width {width}", len(ours), width + 1)
    check_count(NAME, f"reference images for features of width {width}", len(theirs), width + 1)
    return frechet_distance(
        ours.mean(axis=0), _covariance(ours), other_mean=theirs.mean(axis=0), other_covariance=_covariance(theirs)
    )


def frechet_distance(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    other_mean: NDArray[np.float64],
    other_covariance: NDArray[np.float64],
) -> float:
    """Squared Wasserstein-2 distance of two Gaussians: means (f,), covariances (f, f).

    tr (A B)^1/2 is taken as the root eigenvalues of A^1/2 B A^1/2, which is symmetric: no complex parts to cut off, as
    there are with a root of A B.
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
