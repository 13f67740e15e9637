"""What a page is made from. Every part but the title may be missing: a run may just have begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison.films import Film

Row = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the agent did for one image."""

    tier: int
    nfe: int
    actions: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One image of the agent beside the full-length one of the same prompt and seed."""

    prompt: str
    tier: int
    nfe: int
    score: float
    full_score: float
    metric: str
    image: NDArray[np.uint8]
    """(H, W, 3)."""
    full_image: NDArray[np.uint8]
    """(H, W, 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a page shows."""

    title: str
    status: str
    """One line: finished, or how far it is."""
    command: str
    config: str
    """YAML."""
    num_steps: int
    """Of the schedule."""
    iterations: Sequence[Row] = ()
    """Lines of metrics.jsonl."""
    summary: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of a comparison; empty without one."""
    spent: Sequence[Spent] = ()
    films: Sequence[Film] = ()
    best: Sequence[Case] = ()
    worst: Sequence[Case] = ()
    notes: Sequence[str] = ()
    """What is missing, and what would add it."""
