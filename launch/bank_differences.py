"""What a policy's images lose or gain on a bank, pair by pair, against what spends as much or all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addiffusion.bank.archive import Bank
from evaluation.significance.intervals import MINIMUM_COUNT, Interval, bootstrap_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Policy minus an opponent, over the same images."""

    mean: float
    interval: Interval | None
    """BCa bootstrap, 95 %; None with too few images."""

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.mean:+.4f}"
        return f"{self.mean:+.4f} [{self.interval.low:+.4f}, {self.interval.high:+.4f}]"


def differences(bank: Bank, name: str, stops: NDArray[np.int64]) -> dict[str, Difference]:
    """Against the full length, the policy's own stops dealt out by chance, and its mean NFE for every image.

    The last two are expected values, not draws: over all images' stops, and between the two ends around the mean.

    Args:
        bank: with every opponent's images.
        name: of the score.
        stops: (n,) decision at which the policy ends each image, in the bank's order.
    """
    images = bank.trajectories
    nfe = np.mean([one.end_nfe[one.end_at(stop)] for one, stop in zip(images, stops, strict=True)])
    values: list[float] = []
    opponents: dict[str, list[float]] = {"full": [], "random_stop": [], "fixed_stop": []}
    for one, stop in zip(images, stops, strict=True):
        ends = one.ends(name)
        values.append(float(ends[one.end_at(stop)]))
        dealt = np.searchsorted(one.end_rows, stops.clip(max=one.end_rows[-1]))
        opponents["full"].append(float(ends[-1]))
        opponents["random_stop"].append(float(ends[dealt].mean()))
        opponents["fixed_stop"].append(float(np.interp(nfe, one.end_nfe, ends)))
    return {opponent: _difference(np.array(values) - np.array(theirs)) for opponent, theirs in opponents.items()}


def _difference(gaps: NDArray[np.float64]) -> Difference:
    known = gaps[np.isfinite(gaps)]
    enough = len(known) >= MINIMUM_COUNT
    return Difference(
        mean=float(known.mean()) if len(known) else float("nan"),
        interval=bootstrap_interval(known) if enough else None,
    )
