"""Several solver tables in one: a schedule is added when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addiffusion.backbones.base import Backbone
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.sampling.solver_tables.build import table_for
from addiffusion.sampling.solver_tables.table import HEAD, SolverTable

Levels = list[list[float]]
"""(alpha, sigma) by schedule point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Solver, steps and finish of an episode; table rows are those of all schedules together.

    Lists, because slots look numbers up one by one.
    """

    sampler: SamplerSection
    """What it was made for."""
    last_step: int
    """Index of the last schedule point."""
    entry_row: list[int]
    """Table row of each schedule point for a slot that arrives without history."""
    refine_row: list[int]
    """Table row of the refine passes at each point."""
    finish_start: list[int]
    """First table row of the finish of a stop decided at each point."""
    finish_count: list[int]
    """Passes of that finish."""
    timesteps: list[float]
    inside: Levels
    """Noise of a refine at each point."""
    outside: Levels
    """Noise of each point."""
    init_noise_sigma: float
    """Standard deviation of the initial latent."""
    memory: int
    """Entries of the state that its solver needs."""

    @property
    def least_passes(self) -> int:
        """Warm-up, first decision, and the finish of a stop there."""
        warmup = self.sampler.warmup_steps
        return warmup + 1 + self.finish_count[warmup]

    @property
    def full_passes(self) -> int:
        """Those of the full run: one for each point."""
        return self.last_step + 1


class Schedules:
    """Schedules of one model, and the rows of all of them."""

    def __init__(
        self, backbone: Backbone, sampler: SamplerSection, refine: RefineSection, *, table: SolverTable | None = None
    ) -> None:
        """With one schedule.

        Args:
            backbone: the model.
            sampler: of the first schedule.
            refine: what a refine does.
            table: of that schedule, where it is at hand.

        Raises:
            ConfigError: the model can't be sampled so.
        """
        self._backbone, self._refine = backbone, refine
        self._known: dict[SamplerSection, Schedule] = {}
        self._tables: list[SolverTable] = []
        self.next_row: list[int] = []
        """Table row of the pass that follows once a row's step is committed."""
        self.leap_row: list[int] = []
        """Table row whose step a leap commits after the pass of a row; -1 where none can be taken."""
        self.leaps = False
        """Whether one can be taken anywhere."""
        self.state_size = 0
        """K: entries of a slot's state, as many as the solver with the longest memory needs."""
        self.coefficients: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        """(2 + (K + 1)^2, R) t and in_scale of each row; then, for each of (state, u), its weights in (z0_pred, next
        state)."""
        self.noise_levels: list[float] = []
        """Fresh noise that each row's step adds."""
        self.first = self._add(sampler, table or table_for(backbone, sampler, refine))

    def __len__(self) -> int:
        return len(self._known)

    def of(self, sampler: SamplerSection) -> Schedule:
        """The schedule of a sampler, laid out (a tenth of a second or more) when it is first asked for.

        Raises:
            ConfigError: the model can't be sampled so.
        """
        known = self._known.get(sampler)
        return known or self._add(sampler, table_for(self._backbone, sampler, self._refine))

    def _add(self, sampler: SamplerSection, table: SolverTable) -> Schedule:
        start = len(self.next_row)
        self._tables.append(table)
        self.state_size = max(self.state_size, table.state_size)
        self.coefficients = np.concatenate([_by_source(one, self.state_size) for one in self._tables], axis=1)
        self.noise_levels += table.rows[HEAD.index("noise")].tolist()
        self.leap_row += [start + row if row >= 0 else -1 for row in table.leap_row.tolist()]
        self.leaps |= bool((table.leap_row >= 0).any())
        self.next_row += (start + table.next_row).tolist()
        schedule = Schedule(
            sampler=sampler,
            last_step=table.num_steps - 1,
            entry_row=(start + table.entry_row).tolist(),
            refine_row=(start + table.refine_row).tolist(),
            finish_start=(start + table.finish_start).tolist(),
            finish_count=table.finish_count.tolist(),
            timesteps=table.timesteps.tolist(),
            inside=table.refine_noise.T.tolist(),
            outside=table.point_noise.T.tolist(),
            init_noise_sigma=table.init_noise_sigma,
            memory=table.state_size,
        )
        self._known[sampler] = schedule
        return schedule


def _by_source(table: SolverTable, size: int) -> NDArray[np.float32]:
    """Columns of ``Schedules.coefficients``; entries of the state that this solver does not have stay zero.

    Args:
        table: of one schedule.
        size: K, of all schedules.
    """
    t, in_scale, c, d, _ = table.rows[: len(HEAD)]
    own = table.state_size
    sources = [*range(own), size]
    weights = np.zeros((size + 1, size + 1, table.rows.shape[1]), np.float32)
    weights[0, 0], weights[size, 0] = c, d
    weights[np.ix_(sources, range(1, own + 1))] = table.transitions.transpose(2, 1, 0)
    return np.concatenate([t[None], in_scale[None], weights.reshape(-1, weights.shape[-1])])
