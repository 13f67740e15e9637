"""Passes off the base schedule: of a refine, and of the finish of a stopped image.

Both come from a DPM-Solver++ of the model's own noise whose schedule is laid out here. Order 1 is DDIM's step
(arXiv:2211.01095 Sec. 4); order 2 also uses the clean prediction of the pass before (Eq. 2M of Alg. 2).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from addiffusion.sampling.solver_tables.histories import DpmHistory
from addiffusion.sampling.solver_tables.probe import Row, step_row

_HELD = 1e-6
"""Two points closer than this share of their noise are one: PNDM visits its second point twice."""


class FinishSolver:
    """Rows at any noise levels, by ratio of noise to signal (share of noise on a flow)."""

    def __init__(self, solver: Any, *, order: int, flow: bool) -> None:
        self._solver = solver
        self._history = DpmHistory(order)
        self._flow = flow

    @property
    def needs_clean(self) -> bool:
        """Whether the first finish pass reads the clean prediction of the stopped step."""
        return self._history.count > 0

    def noise(self, ratio: float) -> tuple[float, float]:
        """(alpha, sigma) of a level in the solver's latent space."""
        return (1 - ratio, ratio) if self._flow else ((1 + ratio**2) ** -0.5, ratio * (1 + ratio**2) ** -0.5)

    def clean(self, ratio: float) -> NDArray[np.float64]:
        """(2,) coefficients of (z, u) in the clean prediction at a level."""
        row = self._rows([ratio], start=0)[0]
        assert row.clean is not None
        return row.clean[[0, -1]]

    def step(self, ratios: tuple[float, float]) -> NDArray[np.float64]:
        """(1, 2) coefficients of (z, u) in the latent of the second level, stepping from the first by order 1."""
        row = self._rows(ratios, start=0)[0]
        return row.transition[:1, [0, -1]]

    def finish(self, ratios: Sequence[float]) -> list[Row]:
        """Rows of the passes at all levels but the first, which is where the image was stopped."""
        held = ratios[0] <= ratios[1] * (1 + _HELD)
        return self._rows(ratios[1:] if held else ratios, start=0 if held else 1)

    def _rows(self, ratios: Sequence[float], *, start: int) -> list[Row]:
        solver = copy.copy(self._solver)
        solver.sigmas = torch.tensor([*ratios, 0.0])
        solver.timesteps = torch.arange(len(ratios), 0, -1)
        solver.num_inference_steps = len(ratios)
        last = self._history.count
        return [step_row(solver, self._history, index, min(index, last)) for index in range(start, len(ratios))]
