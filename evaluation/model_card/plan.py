"""What the card measures, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from addiffusion.config.sampling import FinishSolverName
from addiffusion.embedded.world.scenes import TIERS

GRID_IMAGES = 24
"""Pictures of one tier's sample grid."""
FEW_STEPS_IMAGES = 6
"""Prompts of the picture that shows what few steps do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPlan:
    """Sizes of the measurement."""

    weights: Path
    """Folder with ``pipeline``, ``clip``, ``dino``, ``aesthetic`` and ``preference``."""
    seed: int = 0
    full_steps: int = 50
    """Length of the run that everything else is compared with."""
    prompts_per_tier: int
    """Test prompts of the quality table."""
    curve_prompts_per_tier: int
    """Test prompts of the curves."""
    guidances: tuple[float, ...] = (2.0, 3.5, 6.0)
    steps: tuple[int, ...] = (5, 10, 15, 20, 30, 50)
    solvers: tuple[FinishSolverName, ...] = get_args(FinishSolverName)
    renders: int = 600
    """Clean renders per tier for checker and autoencoder, and scenes for the scorers."""
    slots: int = 16
    """Batch of the cost measurement."""
    repeats: int = 9
    """Timings of which the median is taken."""

    @property
    def few_steps(self) -> tuple[int, ...]:
        """Lengths whose loss against the full run is measured on all test prompts, not only on those of the curves."""
        return tuple(steps for steps in self.steps if 2 * steps < self.full_steps)

    @property
    def passes(self) -> int:
        """Steps of all images of all measurements: what a progress bar counts."""
        tiers, full = len(TIERS), self.full_steps
        static = sum(self.steps) * len(self.solvers)
        curves = self.curve_prompts_per_tier * tiers
        quality = full * (curves * (len(self.guidances) + 2) + self.prompts_per_tier * tiers)
        quality += sum(self.few_steps) * self.prompts_per_tier * tiers
        grids = full * tiers * GRID_IMAGES + FEW_STEPS_IMAGES * sum(self.steps)
        return quality + grids + curves * len(self.guidances) * (static + full * (full not in self.steps))


Advance = Callable[[str, int], None]
"""Told what is being measured and how many passes (steps of single images) are done."""


def ignore(_what: str, _passes: int) -> None:
    """The listener of a measurement that nobody watches."""
