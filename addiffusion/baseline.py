"""Samplers to compare with that the engine can't run: they come with a pipeline or a model of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """How to make one's rollouts. It travels to where the images are drawn."""

    name: str
    make: Callable[[Scoring], Rollouts]
    """Loads its model, where the worker's own lives; must survive pickling."""
