"""Inception score.

Source: Salimans et al., "Improved Techniques for Training GANs", arXiv:1606.03498, section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from addiffusion.errors import EvaluationError
from evaluation.metrics.samples import check_count, feature_rows

NAME = "inception_score"
_SMALLEST_SPLIT = 2


def inception_score(probabilities: NDArray[np.floating], *, splits: int = 10) -> tuple[float, float]:
    """Mean and deviation, over splits, of exp E KL(p(class | image) || p(class)).

    ``probabilities`` is (n, classes), softmax of InceptionV3; ``splits`` contiguous parts, in the order given. A score
    lies between 1 and the smaller of classes and images per split.

    Raises:
        EvaluationError: fewer than two images per split, or rows that are no distributions.
    """
    rows = feature_rows(NAME, probabilities)
    check_count(NAME, f"images for {splits} splits", len(rows), _SMALLEST_SPLIT * splits)
    if (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1, atol=1e-4):
        raise EvaluationError(
            f"{NAME} needs one distribution over classes per image, but rows are negative or do not sum to 1: apply "
            "softmax to the logits first.",
            metric=NAME,
        )
    scores = [_score(part) for part in np.array_split(rows, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(rows: NDArray[np.float64]) -> float:
    return float(np.exp(rel_entr(rows, rows.mean(axis=0)).sum(axis=1).mean()))
