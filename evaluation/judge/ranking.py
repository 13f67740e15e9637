"""Contestants on one scale, from pairwise outcomes.

P(a beats b) = 1 / (1 + exp(-(strength_a - strength_b))). Source: Bradley and Terry, "Rank Analysis of Incomplete Block
Designs", Biometrika 39 (1952). A tie is half a win for each; invalid contests are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats
from scipy.sparse import csgraph, csr_array

from addiffusion.errors import EvaluationError
from evaluation.judge.contest import Outcome
from evaluation.judge.judging import Ballot
from evaluation.significance.intervals import Interval

_LEVEL = 0.95
_LEFT_SHARE = {Outcome.LEFT: 1.0, Outcome.TIE: 0.5, Outcome.RIGHT: 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One contestant of a ranking."""

    name: str
    strength: float
    """Log-odds of beating the reference; 0 for the reference itself."""
    interval: Interval
    """Of the strength, from the curvature of the likelihood; no width for the reference, which is fixed."""
    wins: float
    """Half a win for each tie."""
    contest_count: int


def bradley_terry(ballots: Sequence[Ballot], *, reference: str, prior: float = 0.0) -> tuple[Standing, ...]:
    """Rank contestants by maximum likelihood, strongest first.

    ``prior`` adds that many wins in each direction to every pair that met; 0 is plain maximum likelihood.

    Intervals take contests as independent: give one contest per prompt and pair, not several seeds of each.

    Raises:
        EvaluationError: ``reference`` took part in no valid contest, or some contestants never lost to, or never met,
            the others, so that no finite strengths fit best.
    """
    valid = [ballot for ballot in ballots if ballot.outcome is not Outcome.INVALID and ballot.left != ballot.right]
    names = sorted({name for ballot in valid for name in (ballot.left, ballot.right)})
    if reference not in names:
        raise EvaluationError(
            f"The reference {reference!r} took part in no valid contest: choose one of {', '.join(names) or 'none'}.",
            reference=reference,
            names=names,
        )
    names.insert(0, names.pop(names.index(reference)))
    wins = _wins(valid, names)
    met = wins + wins.T > 0
    smoothed = wins + prior * met
    _check_connected(smoothed, names)
    strengths = _maximum_likelihood(smoothed)
    errors = _standard_errors(smoothed, strengths) * stats.norm.ppf((1 + _LEVEL) / 2)
    standings = [
        Standing(
            name=name,
            strength=float(strengths[row]),
            interval=Interval(
                low=float(strengths[row] - errors[row]), high=float(strengths[row] + errors[row]), level=_LEVEL
            ),
            wins=float(wins[row].sum()),
            contest_count=round(float(wins[row].sum() + wins[:, row].sum())),
        )
        for row, name in enumerate(names)
    ]
    return tuple(sorted(standings, key=lambda standing: -standing.strength))


def _wins(ballots: Sequence[Ballot], names: Sequence[str]) -> NDArray[np.float64]:
    """(k, k): wins of row against column."""
    rows = {name: row for row, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for ballot in ballots:
        left, right, share = rows[ballot.left], rows[ballot.right], _LEFT_SHARE[ballot.outcome]
        wins[left, right] += share
        wins[right, left] += 1 - share
    return wins


def _check_connected(wins: NDArray[np.float64], names: Sequence[str]) -> None:
    """A maximum exists only if every split into two groups has wins both ways (Ford, Am. Math. Monthly 64, 1957)."""
    count, groups = csgraph.connected_components(csr_array(wins), directed=True, connection="strong")
    if count > 1:
        parts = [
            " + ".join(name for name, at in zip(names, groups, strict=True) if at == group) for group in range(count)
        ]
        raise EvaluationError(
            f"No finite strengths fit best: between {' and '.join(parts)} wins go one way only, or there was no "
            "contest. Judge more contests, or set prior=0.5: half a win each way for every pair that met.",
            groups=parts,
        )


def _maximum_likelihood(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strengths (k,), the first fixed at 0."""

    def loss(free: NDArray[np.float64]) -> float:
        return float((wins * np.logaddexp(0, -_gaps(np.append(0, free)))).sum())

    def slope(free: NDArray[np.float64]) -> NDArray[np.float64]:
        surprise = wins * special.expit(-_gaps(np.append(0, free)))
        return (surprise.sum(axis=0) - surprise.sum(axis=1))[1:]

    def curvature(free: NDArray[np.float64]) -> NDArray[np.float64]:
        return _information(wins, np.append(0, free))

    start = np.zeros(len(wins) - 1)
    found = optimize.minimize(loss, start, jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-9})
    return np.append(0, found.x)


def _standard_errors(wins: NDArray[np.float64], strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,), 0 for the first, by the inverse Fisher information."""
    return np.append(0, np.sqrt(np.diag(np.linalg.inv(_information(wins, strengths)))))


def _information(wins: NDArray[np.float64], strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k - 1, k - 1) curvature of the negative log-likelihood in all strengths but the first."""
    odds = special.expit(_gaps(strengths))
    weights = (wins + wins.T) * odds * (1 - odds)
    return (np.diag(weights.sum(axis=1)) - weights)[1:, 1:]


def _gaps(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return strengths[:, None] - strengths[None, :]
