"""Intervals for a mean and for a proportion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from addiffusion.errors import EvaluationError

MINIMUM_COUNT = 6
"""Fewest values an interval or a paired test takes: 5 pairs can't reach p = 0.05 (2 of their 2**5 sign patterns)."""
_BATCH_VALUES = 2_000_000
"""Values resampled at once: bounds memory at some ten megabytes."""
_NO_SPREAD = 1e-12
"""Relative spread of values that differ by rounding only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: float
    """Confidence, in (0, 1)."""

    def as_json(self) -> list[float]:
        """Its ends."""
        return [self.low, self.high]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How bootstrap and sign flips draw. Equal settings give equal numbers."""

    level: float = 0.95
    """Confidence of intervals, in (0, 1)."""
    count: int = 9_999
    """Resamples; the smallest p-value is about 1 / count."""
    seed: int = 0

    def batch(self, size: int) -> int:
        """Resamples of ``size`` values each to hold at once."""
        return max(1, min(self.count, _BATCH_VALUES // size))


def bootstrap_interval(values: NDArray[np.float64], resampling: Resampling | None = None) -> Interval:
    """BCa bootstrap interval of the mean of ``values`` (n,): corrected for bias and skewness.

    Source: Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987), by scipy.stats.bootstrap. Equal values give
    an interval of no width.

    Raises:
        EvaluationError: fewer than MINIMUM_COUNT values, or one that is not finite.
    """
    resampling = resampling or Resampling()
    _check(values)
    if _constant(values):  # nothing to resample: BCa would be 0 / 0
        return Interval(low=float(values[0]), high=float(values[0]), level=resampling.level)
    return _bca((values,), np.mean, resampling)


def gap_interval(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], resampling: Resampling | None = None
) -> Interval:
    """BCa bootstrap interval of ``ours.mean() - theirs.mean()``, two samples (n,) and (m,) that are not paired.

    Raises:
        EvaluationError: a sample of fewer than MINIMUM_COUNT values, or one that is not finite.
    """
    resampling = resampling or Resampling()
    _check(ours)
    _check(theirs)
    if _constant(ours) and _constant(theirs):
        gap = float(ours[0] - theirs[0])
        return Interval(low=gap, high=gap, level=resampling.level)
    return _bca((ours, theirs), _gap_of_means, resampling)


def _bca(samples: tuple[NDArray[np.float64], ...], statistic: Callable[..., Any], resampling: Resampling) -> Interval:
    bounds = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resampling.count,
        batch=resampling.batch(max(map(len, samples))),
        confidence_level=resampling.level,
        method="BCa",
        rng=np.random.default_rng(resampling.seed),
    ).confidence_interval
    return Interval(low=float(bounds.low), high=float(bounds.high), level=resampling.level)


def _gap_of_means(ours: NDArray[np.float64], theirs: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return ours.mean(axis) - theirs.mean(axis)


def _constant(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= _NO_SPREAD * np.abs(values).max())


def _check(values: NDArray[np.float64]) -> None:
    if values.ndim != 1 or len(values) < MINIMUM_COUNT:
        raise EvaluationError(
            f"An interval needs a row of at least {MINIMUM_COUNT} values, got shape {values.shape}: evaluate more "
            "prompts.",
            shape=values.shape,
            minimum=MINIMUM_COUNT,
        )
    if not np.isfinite(values).all():
        raise EvaluationError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite: leave them out and say how "
            "many they were.",
            count=len(values),
        )
