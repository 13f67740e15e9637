"""Every stop of every image, from a trajectory bank: an exact oracle, and opponents that stop without looking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from addiffusion.bank.archive import Bank
from addiffusion.bank.trajectory import Trajectory
from addiffusion.records import METRIC_NAMES, SCORE_NAMES
from evaluation.comparison.contestants import EvalCase
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.metrics.similarity import cosine_similarity


def bank_stops(bank: Bank, cases: Sequence[EvalCase], full: MetricTable) -> list[MetricTable]:
    """One table per end that the bank's trajectories have; cases it does not hold are NaN.

    Args:
        bank: built with the agent's sampler.
        cases: prompts and seeds of the comparison.
        full: full-length images, whose features likeness is measured to.
    """
    found = [(case.index, bank.find(case.prompt.text, case.seed)) for case in cases]
    held = {index: trajectory for index, trajectory in found if trajectory is not None}
    count = max((len(one.end_rows) for one in held.values()), default=0)
    return [_table(end, held, full) for end in range(count)]


def _table(end: int, held: dict[int, Trajectory], full: MetricTable) -> MetricTable:
    here = {index: one for index, one in held.items() if end < len(one.end_rows)}
    blank = np.full(len(full.nfe), np.nan)
    nfe, evals = blank.copy(), blank.copy()
    scores = {name: blank.copy() for name in (*SCORE_NAMES, *METRIC_NAMES, "dino_similarity")}
    dino = np.full_like(full.dino, np.nan)
    for index, one in here.items():
        nfe[index] = one.end_nfe[end]
        evals[index] = one.end_nfe[end] * one.evals_per_nfe
        for column, name in enumerate(SCORE_NAMES):
            scores[name][index] = one.end_scores[end, column]
        for column in range(one.end_metrics.shape[1]):
            scores[METRIC_NAMES[column]][index] = one.end_metrics[end, column]
        dino[index] = one.end_dino[end]
    rows = np.array(sorted(here), np.int64)
    scores["dino_similarity"][rows] = _likeness(dino[rows], full.dino[rows])
    contestant = replace(full.contestant, name=f"bank-stop-{end}", title=f"bank, end {end}")
    return replace(full, contestant=contestant, nfe=nfe, network_evals=evals, scores=scores, dino=dino, errors=())


def _likeness(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    return cosine_similarity(ours, theirs) if len(ours) else np.zeros(0)


def against_stops(bank: Bank, policy: MetricTable, stops: NDArray[np.int64]) -> ComparisonResult:
    """A replayed policy beside the full length, its own stops dealt out by chance, and its mean NFE for every image.

    The last two are expected values, not draws: over all images' stops, and between the two ends around the mean.

    Args:
        bank: what it was replayed on.
        policy: a row per trajectory, in the bank's order.
        stops: (n,) decision at which the policy ends each image.

    Returns:
        With the others ``full``, ``random_stop`` and ``fixed_stop``.
    """
    # An image whose stop was not tried is that of the next one that was, so opponents may spend as much as that one.
    nfe = np.mean([one.end_nfe[one.end_at(stop)] for one, stop in zip(bank.trajectories, stops, strict=True)])
    opponents: Mapping[str, Callable[[Trajectory, NDArray[np.float64]], float]] = {
        "full": lambda _, values: values[-1],
        "random_stop": lambda one, values: float(values[one.ends_at(stops)].mean()),
        "fixed_stop": lambda one, values: float(np.interp(nfe, one.end_nfe, values)),
    }
    names = (*SCORE_NAMES, *bank.plan.metrics)
    return ComparisonResult(
        agent=policy,
        others={
            opponent: replace(
                policy,
                contestant=replace(policy.contestant, name=opponent, title=opponent.replace("_", " "), kind="control"),
                nfe=np.array([pick(one, one.end_nfe.astype(np.float64)) for one in bank.trajectories]),
                scores={name: np.array([pick(one, one.ends(name)) for one in bank.trajectories]) for name in names},
            )
            for opponent, pick in opponents.items()
        },
    )
