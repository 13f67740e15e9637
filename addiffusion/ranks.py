"""Rank correlation: how closely two numbers of the same things rise together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats  # pyright: ignore[reportMissingTypeStubs]


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rho of two rows (n,), mean ranks for ties; NaN where either has one value only."""
    if len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return math.nan
    ranks: Any = stats.rankdata([first, second], axis=1)  # pyright: ignore[reportUnknownMemberType]
    return float(np.corrcoef(ranks)[0, 1])
