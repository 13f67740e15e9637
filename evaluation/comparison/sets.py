"""Metrics of whole sets of images, against the images of the agent's whole schedule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.comparison.contestants import EvalCase
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.results import ImageResult, ResultStore
from evaluation.metrics.cmmd import cmmd
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.similarity import ssim


def set_metrics(
    table: MetricTable, full: MetricTable, cases: Sequence[EvalCase], store: ResultStore
) -> dict[str, float | None]:
    """``cmmd`` and ``fd_dino`` (Fréchet distance of DINO features) to the full images as sets, mean ``ssim`` to them.

    Null where there are too few images: a Fréchet distance needs more of them than features are wide.

    Args:
        table: the contestant's images.
        full: full-length images of the same cases.
        cases: rows of both tables.
        store: where the pixels lie, for ``ssim``.
    """
    both = table.drawn & full.drawn
    found: dict[str, float | None] = {"cmmd": None, "fd_dino": None, "ssim": None}
    if not both.any():
        return found
    if table.clip.shape[1]:
        found["cmmd"] = cmmd(table.clip[both], full.clip[both])
    if 0 < table.dino.shape[1] < int(both.sum()):
        found["fd_dino"] = frechet_distance("fd_dino", table.dino[both], full.dino[both])
    if table.contestant.kind != "oracle":
        found["ssim"] = _mean_ssim(table, full, [cases[row] for row in np.flatnonzero(both).tolist()], store)
    return found


def _mean_ssim(table: MetricTable, full: MetricTable, cases: Sequence[EvalCase], store: ResultStore) -> float | None:
    ours, theirs = (
        np.stack([store.image(ImageResult.of(one.contestant.name, case)) for case in cases]) for one in (table, full)
    )
    if ours.shape != theirs.shape or min(ours.shape[1:3]) < 11:
        return None
    return float(ssim(ours, theirs).mean())
