"""Results as a table: one value per case, so that row i of every contestant is the same prompt and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from addiffusion.ranks import rank_correlation
from evaluation.comparison.contestants import Contestant, EvalCase
from evaluation.comparison.results import ImageResult
from evaluation.metrics.similarity import cosine_similarity
from evaluation.numbers import mean_of_numbers
from evaluation.significance.intervals import MINIMUM_COUNT, Interval, bootstrap_interval
from evaluation.significance.paired import mean_by_prompt

Column = NDArray[np.float64]
SPENT = ("nfe", "network_evals", "seconds", "seconds_full_queue")
"""Columns of what an image took."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricTable:
    """One contestant over the cases; NaN where it has no image or no score."""

    contestant: Contestant
    tier: NDArray[np.int64]
    prompt_id: NDArray[np.int64]
    nfe: Column
    network_evals: Column
    seconds: Column
    seconds_full_queue: Column
    scores: Mapping[str, Column]
    """By score name, and ``dino_similarity`` to the full-length image."""
    dino: NDArray[np.float64]
    """(n, f) features of the returned images."""
    clip: NDArray[np.float64]
    """(n, e)."""
    errors: tuple[str, ...] = field(default=())
    """Why images are missing, one sentence each."""
    _intervals: dict[str, Interval | None] = field(default_factory=dict[str, Interval | None], init=False, repr=False)
    """Bootstrapped once, shown many times."""

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """(n,) cases that have an image."""
        return np.isfinite(self.nfe)

    def value(self, name: str) -> Column:
        """A column by name: one of SPENT, or a score; all NaN where there is none."""
        if name in SPENT:
            return getattr(self, name)
        return self.scores.get(name, np.full(len(self.nfe), np.nan))

    def mean(self, name: str, rows: NDArray[np.bool_] | None = None) -> float:
        """Mean over the rows that have it; NaN when none has."""
        values = self.value(name) if rows is None else self.value(name)[rows]
        return mean_of_numbers(values)

    def tiers(self) -> list[int]:
        """Tiers of which there are images, in order."""
        return np.unique(self.tier[self.drawn]).tolist()

    def mean_by_tier(self, name: str) -> dict[int, float]:
        """Means of the tiers of which there are images."""
        return {tier: self.mean(name, self.tier == tier) for tier in self.tiers()}

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval of the mean over prompts (seeds averaged first); None with too few prompts."""
        if name not in self._intervals:
            values = mean_by_prompt(self.value(name), self.prompt_id)
            values = values[np.isfinite(values)]
            self._intervals[name] = bootstrap_interval(values) if len(values) >= MINIMUM_COUNT else None
        return self._intervals[name]

    def by_prompt(self, name: str) -> Column:
        """Mean of each prompt over its seeds."""
        return mean_by_prompt(self.value(name), self.prompt_id)


def metric_table(
    contestant: Contestant, results: Sequence[ImageResult], cases: Sequence[EvalCase], full: MetricTable | None
) -> MetricTable:
    """Lay results out over the cases.

    Args:
        contestant: whose results these are.
        results: one per case, in any order; a case without one is NaN.
        cases: the rows, in their order.
        full: the images that ``dino_similarity`` is measured to; None: its own.
    """
    count = len(cases)
    names = sorted({name for result in results for name in result.scores})
    values = {name: np.full(count, np.nan) for name in (*names, *SPENT)}
    good = [result for result in results if result.error is None]
    dino, clip = _matrix(good, "dino_embedding", count), _matrix(good, "clip_embedding", count)
    for result in good:
        for name in SPENT:
            values[name][result.index] = getattr(result, name)
        for name, score in result.scores.items():
            values[name][result.index] = score
    scores = {name: values[name] for name in names}
    scores["dino_similarity"] = _similarity(dino, dino if full is None else full.dino)
    return MetricTable(
        contestant=contestant,
        tier=np.array([case.prompt.tier for case in cases]),
        prompt_id=np.array([case.prompt.prompt_id for case in cases]),
        nfe=values["nfe"],
        network_evals=values["network_evals"],
        seconds=values["seconds"],
        seconds_full_queue=values["seconds_full_queue"],
        scores=scores,
        dino=dino,
        clip=clip,
        errors=tuple(result.error for result in results if result.error is not None),
    )


def tier_correlation(table: MetricTable) -> float:
    """Spearman's rho of NFE and tier over images, mean ranks for ties; NaN where either has one value only."""
    rows = table.drawn & (table.tier > 0)
    return rank_correlation(table.nfe[rows], table.tier[rows])


def _matrix(results: Sequence[ImageResult], name: str, count: int) -> NDArray[np.float64]:
    width = max((len(getattr(result, name)) for result in results), default=0)
    rows = np.full((count, width), np.nan)
    for result in results:
        rows[result.index] = getattr(result, name)
    return rows


def _similarity(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Column:
    values = np.full(len(ours), np.nan)
    if ours.shape == theirs.shape and ours.shape[1]:
        both = np.isfinite(ours).all(axis=1) & np.isfinite(theirs).all(axis=1)
        if both.any():
            values[both] = cosine_similarity(ours[both], theirs[both])
    return values
