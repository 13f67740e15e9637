"""Metrics of whole sets of images, against the images of the agent's whole schedule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.comparison.columns import Columns
from evaluation.comparison.contestants import Item
from evaluation.comparison.results import ImageResult, ResultStore
from evaluation.metrics.cmmd import cmmd
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.similarity import ssim


def set_metrics(columns: Columns, full: Columns, items: Sequence[Item], store: ResultStore) -> dict[str, float | None]:
    """``cmmd`` and ``fd_dino`` (Fréchet distance of DINO features) to the full images as sets, mean ``ssim`` to them.

    Null where there are too few images: a Fréchet distance needs more of them than features are wide.
    """
    both = columns.drawn & full.drawn
    found: dict[str, float | None] = {"cmmd": None, "fd_dino": None, "ssim": None}
    if not both.any():
        return found
    if columns.clip.shape[1]:
        found["cmmd"] = cmmd(columns.clip[both], full.clip[both])
    if 0 < columns.dino.shape[1] < int(both.sum()):
        found["fd_dino"] = frechet_distance("fd_dino", columns.dino[both], full.dino[both])
    if columns.contestant.kind != "oracle":
        found["ssim"] = _mean_ssim(columns, full, [items[row] for row in np.flatnonzero(both).tolist()], store)
    return found


def _mean_ssim(columns: Columns, full: Columns, items: Sequence[Item], store: ResultStore) -> float | None:
    ours, theirs = (
        np.stack([store.image(_place(one.contestant.name, item)) for item in items]) for one in (columns, full)
    )
    if ours.shape != theirs.shape or min(ours.shape[1:3]) < 11:
        return None
    return float(ssim(ours, theirs).mean())


def _place(contestant: str, item: Item) -> ImageResult:
    return ImageResult(
        contestant=contestant,
        index=item.index,
        prompt_id=item.prompt.prompt_id,
        prompt=item.prompt.text,
        tier=item.prompt.tier,
        repeat=item.repeat,
        seed=item.seed,
    )
