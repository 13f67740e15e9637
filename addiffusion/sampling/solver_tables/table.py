"""The solver table: every pass a slot can make, as rows of coefficients.

A row is one network pass at one timestep and what follows from its raw output ``u``. The state of a slot is its latent
``z`` (entry 0) and, for multistep solvers, what the solver remembers of earlier passes:

    network input = in_scale * z
    z0_pred       = c * z + d * u
    next state    = transition @ [state, u]  (+ noise in entry 0, for the samplers that draw some at every step)

At a fixed step every solver is linear in state and u, so rows are read off diffusers' schedulers by stepping them with
unit vectors (``addiffusion.sampling.solver_tables.probe``): no formula of a solver is written down a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAD = ("t", "in_scale", "c", "d", "noise")
"""First columns of ``SolverTable.rows``; the transition follows, row by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverTable:
    """The rows: base steps, refine passes, finish passes, and one dead row for idle slots."""

    num_steps: int
    """N: schedule points of the base schedule."""
    state_size: int
    """K: entries of a slot's state."""
    rows: NDArray[np.float32]
    """(5 + K (K + 1), R): the columns of HEAD, then the transition (K, K + 1)."""
    next_row: NDArray[np.int64]
    """(R,) row of the pass that follows once a row's step is committed."""
    entry_row: NDArray[np.int64]
    """(N,) row of each schedule point for a slot that arrives without history."""
    leap_row: NDArray[np.int64]
    """(R,) row whose step a leap commits after the pass of a row, in place of its own; -1 where none can be taken."""
    timesteps: NDArray[np.float32]
    """(N,) timestep of each schedule point, as the network is told."""
    point_noise: NDArray[np.float32]
    """(2, N) (alpha, sigma) that put a clean latent on a schedule point."""
    refine_row: NDArray[np.int64]
    """(N,) row of the refine passes at each step."""
    refine_noise: NDArray[np.float32]
    """(2, N) (alpha', sigma') that put a clean latent on t' = r_noise * t."""
    finish_start: NDArray[np.int64]
    """(N,) first row of the finish of a stop decided at each step."""
    finish_count: NDArray[np.int64]
    """(N,) passes of that finish: min(finish_steps, N - 1 - i)."""
    init_noise_sigma: float
    """Standard deviation of the initial latent."""

    @property
    def transitions(self) -> NDArray[np.float32]:
        """(R, K, K + 1) what each row does to (state, u)."""
        return self.rows[len(HEAD) :].T.reshape(-1, self.state_size, self.state_size + 1)
