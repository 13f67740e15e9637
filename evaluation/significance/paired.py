"""Two contestants on the same (prompt, seed) pairs: difference, interval, p-value, non-inferiority.

Higher is better throughout; give a score of which less is better with its sign turned. Several seeds of one prompt are
not independent: average them with `mean_by_prompt` first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from addiffusion.errors import EvaluationError
from evaluation.significance.intervals import MINIMUM_COUNT, Interval, Resampling, bootstrap_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One score of one contestant against a baseline, over the pairs in which both have it."""

    name: str
    """Contestant and baseline, for people."""
    metric: str
    mean: float
    baseline_mean: float
    interval: Interval
    """Of the difference."""
    p_value: float
    """Two-sided, of no difference; not corrected for other comparisons (`holm` does that)."""
    count: int
    """Pairs compared."""
    dropped_count: int
    """Pairs left out because one of the two has no score."""

    @property
    def difference(self) -> float:
        """Contestant minus baseline."""
        return self.mean - self.baseline_mean

    def brief(self, digits: int = 3) -> str:
        """Difference and interval, for a cell of a table."""
        low, high = self.interval.low, self.interval.high
        return f"{self.difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"

    def as_json(self) -> dict[str, float | int]:
        """The difference, for programs."""
        return {
            "mean": self.difference,
            "low": self.interval.low,
            "high": self.interval.high,
            "level": self.interval.level,
            "p_value": self.p_value,
            "count": self.count,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether a contestant is worse than a baseline by less than a margin fixed in advance."""

    margin: float
    difference: float
    interval: Interval
    """Two-sided, of the difference; its lower end is a one-sided bound at half its error."""
    p_value: float
    """One-sided, of `the contestant is worse by the margin or more`."""
    count: int

    @property
    def established(self) -> bool:
        """True when test and interval agree on it, so that a table never shows one against the other.

        One-sided error at most (1 - level) / 2: 2.5 % for a 95 % interval, as ICH E9 (1998) section 3.5 asks.
        """
        return self.p_value <= (1 - self.interval.level) / 2 and self.interval.low > -self.margin


def compare(
    values: NDArray[np.floating],
    baseline: NDArray[np.floating],
    *,
    name: str,
    metric: str,
    resampling: Resampling | None = None,
) -> Comparison:
    """Mean difference of two contestants, its interval and its p-value.

    The p-value is that of the sign-flip test. It is exact where differences are symmetric about 0, and asymptotically
    right where they are not: flips keep the sum of squares, so the mean orders them as Student's t does.

    Args:
        values: (n,) scores of the contestant.
        baseline: (n,) scores to compare with; row i is the same (prompt, seed). NaN: no score.
        name: contestant and baseline, for people.
        metric: name of the score.
        resampling: how many resamples, and their seed; None: the usual ones.

    Raises:
        EvaluationError: counts differ, or fewer than MINIMUM_COUNT pairs have both scores.
    """
    resampling = resampling or Resampling()
    ours, theirs = _pairs(values, baseline)
    differences = ours - theirs
    return Comparison(
        name=name,
        metric=metric,
        mean=float(ours.mean()),
        baseline_mean=float(theirs.mean()),
        interval=bootstrap_interval(differences, resampling),
        p_value=_sign_flip(differences, "two-sided", resampling),
        count=len(ours),
        dropped_count=len(values) - len(ours),
    )


def compare_if_enough(
    values: NDArray[np.floating], baseline: NDArray[np.floating], *, name: str, metric: str
) -> Comparison | None:
    """``compare``, or None where fewer than MINIMUM_COUNT pairs have both scores.

    Args:
        values: (n,) scores of the contestant.
        baseline: (n,) scores to compare with; row i is the same (prompt, seed). NaN: no score.
        name: contestant and baseline, for people.
        metric: name of the score.
    """
    if int(np.isfinite(values - baseline).sum()) < MINIMUM_COUNT:
        return None
    return compare(values, baseline, name=name, metric=metric)


def non_inferiority(
    values: NDArray[np.floating],
    baseline: NDArray[np.floating],
    *,
    margin: float,
    resampling: Resampling | None = None,
) -> NonInferiority:
    """Test whether a contestant is worse than a baseline by less than ``margin``.

    Args:
        values: (n,) scores of the contestant.
        baseline: (n,) scores to compare with; row i is the same (prompt, seed). NaN: no score.
        margin: the largest loss that does not matter, above 0, in units of the score.
        resampling: how many resamples, and their seed; None: the usual ones.

    Raises:
        EvaluationError: a margin that is not a positive number, counts that differ, or too few pairs.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise EvaluationError(
            f"margin={margin} can't be tested: give the largest loss that does not matter, a number above 0 in units "
            "of the score.",
            margin=margin,
        )
    resampling = resampling or Resampling()
    ours, theirs = _pairs(values, baseline)
    differences = ours - theirs
    return NonInferiority(
        margin=margin,
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences, resampling),
        p_value=_sign_flip(differences + margin, "greater", resampling),
        count=len(differences),
    )


def mean_by_prompt(values: NDArray[np.floating], prompt_ids: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean score of each prompt over its seeds, prompts in ascending order of id; NaN where no seed has a score.

    Raises:
        EvaluationError: ``values`` and ``prompt_ids`` are not (n,) both.
    """
    if values.shape != prompt_ids.shape or values.ndim != 1:
        raise EvaluationError(
            f"Scores of shape {values.shape} and prompt ids of shape {prompt_ids.shape} don't belong together: give "
            "one prompt id per score.",
            scores=values.shape,
            prompts=prompt_ids.shape,
        )
    prompts, rows = np.unique(prompt_ids, return_inverse=True)
    scored = np.isfinite(values)
    sums = np.bincount(rows[scored], weights=values[scored], minlength=len(prompts))
    counts = np.bincount(rows[scored], minlength=len(prompts))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _pairs(
    values: NDArray[np.floating], baseline: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows in which both have a score."""
    if values.ndim != 1 or values.shape != baseline.shape:
        raise EvaluationError(
            f"Scores of shape {values.shape} can't be paired with scores of shape {baseline.shape}: give both "
            "contestants the same prompts and seeds, in the same order.",
            ours=values.shape,
            theirs=baseline.shape,
        )
    both = np.isfinite(values) & np.isfinite(baseline)
    if both.sum() < MINIMUM_COUNT:
        raise EvaluationError(
            f"A paired comparison needs at least {MINIMUM_COUNT} pairs with both scores, got {int(both.sum())} of "
            f"{len(values)}: evaluate more prompts.",
            count=int(both.sum()),
            minimum=MINIMUM_COUNT,
        )
    return values[both].astype(np.float64), baseline[both].astype(np.float64)


def _sign_flip(
    differences: NDArray[np.float64], alternative: Literal["two-sided", "greater"], resampling: Resampling
) -> float:
    """Share of sign patterns with a mean at least as extreme; all patterns where there are few, else random ones."""
    outcome = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resampling.count,
        batch=resampling.batch(2 * len(differences)),
        alternative=alternative,
        rng=np.random.default_rng(resampling.seed),
    )
    return float(outcome.pvalue)
