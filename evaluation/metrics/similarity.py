"""Images against the full-length images of the same prompts and seeds, one value per image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from addiffusion.errors import EvaluationError
from evaluation.metrics.samples import check_images, check_pairs, feature_sets

_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(images: NDArray[np.uint8], full_images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity (n,) of two batches (n, H, W, 3); 1 is equal.

    Gaussian window of 11 pixels and sigma 1.5, K1 0.01, K2 0.03, per channel on [0, 1], averaged over channels and
    those pixels whose window lies inside. Source: Wang et al., "Image Quality Assessment: From Error Visibility to
    Structural Similarity", IEEE TIP 13 (2004), Eq. 13.

    Raises:
        EvaluationError: not uint8 images, counts or sizes that differ, or a side below 11 pixels.
    """
    check_images("ssim", images, full_images)
    window = 2 * _RADIUS + 1
    if min(images.shape[1:3]) < window:
        raise EvaluationError(
            f"ssim needs images of at least {window} x {window} pixels, got {images.shape[1]} x {images.shape[2]}.",
            metric="ssim",
        )
    return np.array([_ssim(one, other) for one, other in zip(images, full_images, strict=True)], np.float64)


def cosine_similarity(
    features: NDArray[np.floating], full_features: NDArray[np.floating], *, metric: str = "dino_similarity"
) -> NDArray[np.float64]:
    """Cosine (n,) of the angle between rows of ``features`` (n, f) and ``full_features`` (n, f), in [-1, 1].

    Raises:
        EvaluationError: counts or widths differ, values are not finite, or a row is all zeros and has no direction.
    """
    ours, theirs = feature_sets(metric, features, full_features)
    check_pairs(metric, len(ours), len(theirs))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    if (norms == 0).any():
        raise EvaluationError(
            f"{metric}: {int((norms == 0).sum())} of {len(norms)} pairs have features that are all zeros; leave out "
            "images whose model failed.",
            metric=metric,
        )
    return np.clip((ours * theirs).sum(axis=1) / norms, -1, 1)


def _ssim(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    x, y = image.astype(np.float64) / 255, other.astype(np.float64) / 255
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x, variance_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return float((luminance * structure).mean())


def _windowed(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean around each pixel, borders cut off."""
    smooth = ndimage.gaussian_filter(channels, _SIGMA, axes=(0, 1), radius=_RADIUS)
    return smooth[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
