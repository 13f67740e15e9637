"""What a comparison's folder gives a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison.films import Film, FilmStore
from evaluation.comparison.folder import SUMMARY
from evaluation.comparison.results import ImageResult, ResultStore
from evaluation.report.report_data import Case, Spent

AGENT, FULL = "agent", "full"
_CASES = 6


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a comparison; empty while it is not finished."""
    file = path / SUMMARY
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def agent_films(path: Path) -> list[Film]:
    """The agent's film strips.

    Raises:
        ArchiveError: one can't be read.
    """
    return FilmStore(path).read(AGENT)


def agent_spent(path: Path) -> list[Spent]:
    """What the agent did for each image drawn so far.

    Raises:
        ArchiveError: a part can't be read.
    """
    return [
        Spent(tier=result.tier, nfe=result.nfe, actions=result.actions, steps=result.steps)
        for result in ResultStore(path).read([AGENT])[AGENT]
        if result.error is None
    ]


def cases(path: Path) -> tuple[list[Case], list[Case]]:
    """(best, worst): images in which the agent gains, or loses, most against the full-length image.

    By scene score where there is one, else by CLIP; equal scores are neither.

    Raises:
        ArchiveError: a part or an image can't be read.
    """
    store = ResultStore(path)
    read = store.read([AGENT, FULL])
    full = {result.index: result for result in read[FULL] if result.error is None}
    pairs = [(one, full[one.index]) for one in read[AGENT] if one.error is None and one.index in full]
    metric = next((name for name in ("scene_soft", "clip") if any(_has(pair, name) for pair in pairs)), "clip")
    gaps = [
        (ours.scores[metric] - theirs.scores[metric], ours, theirs)
        for ours, theirs in pairs
        if _has((ours, theirs), metric)
    ]
    gaps.sort(key=lambda gap: (gap[0], gap[1].index))
    worst = [(ours, theirs) for gap, ours, theirs in gaps[:_CASES] if gap < 0]
    best = [(ours, theirs) for gap, ours, theirs in reversed(gaps[-_CASES:]) if gap > 0]
    return [_case(store, pair, metric) for pair in best], [_case(store, pair, metric) for pair in worst]


def _has(pair: Sequence[ImageResult], metric: str) -> bool:
    return all(math.isfinite(one.scores.get(metric, math.nan)) for one in pair)


def _case(store: ResultStore, pair: tuple[ImageResult, ImageResult], metric: str) -> Case:
    ours, theirs = pair
    return Case(
        prompt=ours.prompt,
        tier=ours.tier,
        nfe=ours.nfe,
        score=ours.scores[metric],
        full_score=theirs.scores[metric],
        metric=metric,
        image=store.image(ours),
        full_image=store.image(theirs),
    )
