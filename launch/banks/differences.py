"""What a policy's images lose or gain on a bank, pair by pair, against what spends as much or all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from addiffusion.bank.archive import Bank
from evaluation.significance.paired import Comparison, compare_if_enough


def differences(bank: Bank, name: str, stops: NDArray[np.int64]) -> dict[str, Comparison | None]:
    """Against the full length, the policy's own stops dealt out by chance, and its mean NFE for every image.

    The last two are expected values, not draws: over all images' stops, and between the two ends around the mean.

    Args:
        bank: with every opponent's images.
        name: of the score.
        stops: (n,) decision at which the policy ends each image, in the bank's order.

    Returns:
        By opponent (``full``, ``random_stop``, ``fixed_stop``); None with too few images.
    """
    images = bank.trajectories
    taken = [one.end_at(stop) for one, stop in zip(images, stops, strict=True)]
    nfe = np.mean([one.end_nfe[end] for one, end in zip(images, taken, strict=True)])
    values: list[float] = []
    opponents: dict[str, list[float]] = {"full": [], "random_stop": [], "fixed_stop": []}
    for one, end in zip(images, taken, strict=True):
        ends = one.ends(name)
        values.append(float(ends[end]))
        opponents["full"].append(float(ends[-1]))
        opponents["random_stop"].append(float(ends[one.ends_at(stops)].mean()))
        opponents["fixed_stop"].append(float(np.interp(nfe, one.end_nfe, ends)))
    ours = np.array(values)
    return {
        opponent: compare_if_enough(ours, np.array(theirs), name=f"policy - {opponent}", metric=name)
        for opponent, theirs in opponents.items()
    }
