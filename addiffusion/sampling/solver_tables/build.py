"""Construction of a solver table: base steps, refines, finishes, the dead row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from addiffusion.backbones.base import Backbone, Scheduler
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import ConfigError
from addiffusion.sampling.solver_tables.checks import check_finite, check_options, laid_out
from addiffusion.sampling.solver_tables.finish import FinishSolver
from addiffusion.sampling.solver_tables.leaps import Node, Steps, check_leaps, on_path, steps_equally
from addiffusion.sampling.solver_tables.probe import Probe, Row
from addiffusion.sampling.solver_tables.table import HEAD, SolverTable
from addiffusion.torch_typed import LinAlgError

FINISH_ORDER = {"ddim": 1, "dpm++2m": 2}
"""Solvers of a finish, by name."""


def table_for(backbone: Backbone, sampler: SamplerSection, refine: RefineSection) -> SolverTable:
    """The table a configuration asks for, on a backbone's noise schedule.

    Raises:
        ConfigError: the model can't be sampled so.
    """
    return table_on(backbone.scheduler, sampler, refine)


def table_on(scheduler: Scheduler, sampler: SamplerSection, refine: RefineSection) -> SolverTable:
    """The table a configuration asks for, on the noise schedule of a model's own scheduler.

    Raises:
        ConfigError: the model can't be sampled so.
    """
    # diffusers takes seconds to import: only those who build a table pay for it.
    from addiffusion.backbones.solvers import solver_of  # noqa: PLC0415

    return build_table(
        solver_of(scheduler, sampler),
        sampler.num_steps,
        finish_steps=sampler.finish_steps,
        r_noise=refine.r_noise,
        finish_solver=sampler.finish_solver,
        leap_steps=sampler.leap_steps,
    )


def build_table(
    scheduler: Scheduler,
    num_steps: int,
    *,
    finish_steps: int,
    r_noise: float,
    finish_solver: str = "ddim",
    leap_steps: int | None = None,
) -> SolverTable:
    """Probe a scheduler for a base schedule of ``num_steps``, its refines and its finishes.

    A stop decided at step i commits that step, then comes to t = 0 by ``finish_steps`` passes at timesteps spaced
    evenly between T[i + 1] and 0, but never by more passes than the base schedule had left.

    Args:
        scheduler: a diffusers scheduler; it is left as it is.
        num_steps: steps of the base schedule (PNDM makes one point more of them).
        finish_steps: passes of a finish.
        r_noise: share of the timestep at which a refine works.
        finish_solver: a name of FINISH_ORDER.
        leap_steps: intervals of the base schedule that a leap goes over; None: there are no leaps.

    Raises:
        ConfigError: a step is not linear in state and output, or there is no schedule of that many steps.
    """
    from addiffusion.backbones.solvers import check_schedule, respaced  # noqa: PLC0415 - see table_on

    check_options(scheduler)
    check_schedule(scheduler)
    probe = laid_out(scheduler, num_steps)
    order = FINISH_ORDER[finish_solver]
    finish = FinishSolver(respaced(scheduler, order=order), order=order, flow=probe.flow)
    if leap_steps is not None:
        check_leaps(probe)
    try:
        return _Builder(probe, finish, finish_steps=finish_steps, r_noise=r_noise, leap_steps=leap_steps).table()
    except LinAlgError as error:
        raise ConfigError(
            f"{type(scheduler).__name__} has no step of its order somewhere on the schedule of sampler.num_steps="
            f"{num_steps}, because two noise levels coincide there: use another solver or spacing.",
            num_steps=num_steps,
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """One row before it is packed."""

    t: float
    row: Row
    clean: NDArray[np.float64]
    """(K + 1,)."""
    transition: NDArray[np.float64]
    """(K, K + 1)."""


class _Builder:
    """Passes in the order of the table: base steps, refines, finishes, the dead row."""

    def __init__(
        self,
        probe: Probe,
        finish_solver: FinishSolver,
        *,
        finish_steps: int,
        r_noise: float,
        leap_steps: int | None,
    ) -> None:
        """Nothing is laid out as yet.

        Args:
            probe: the base schedule.
            finish_solver: rows off it.
            finish_steps: passes of a finish.
            r_noise: share of the timestep at which a refine works.
            leap_steps: intervals that a leap goes over; None: there are none.
        """
        self._probe, self._finish_solver = probe, finish_solver
        self._finish_steps, self._r_noise = finish_steps, r_noise
        # Entry 1 is the last pass's clean prediction wherever a finish needs it; some solvers remember it anyway.
        self._extra_entry = finish_solver.needs_clean and not probe.history.clean_first
        self._size = probe.history.count + 1 + self._extra_entry
        self._t = [float(t) for t in probe.timesteps]
        self._ratios = probe.ratios()
        self._passes: list[_Pass] = []
        self._next: list[int] = []
        self._leap: list[int] = []
        self._steps = Steps(history=probe.history, last=len(self._t) - 1, leap_steps=leap_steps)

    def table(self) -> SolverTable:
        """All rows, laid out and packed."""
        points = len(self._t)
        entry_row = self._base()
        refine_row = len(self._passes) + np.arange(points)
        refines = [self._refine_level(step) for step in range(points)]
        for t, ratio in refines:
            self._add(t, Row(in_scale=1.0, clean=None, transition=np.zeros((1, 2)), noise=0.0), ratio)
        counts = np.array([min(self._finish_steps, points - 1 - step) for step in range(points)], np.int64)
        finish_start = len(self._passes) + np.cumsum(counts) - counts
        for step, count in enumerate(counts.tolist()):
            self._finish(step, count)
        rows = np.zeros((len(HEAD) + self._size * (self._size + 1), len(self._passes) + 1))
        for column, one in enumerate(self._passes):
            rows[:, column] = _packed(one)
        check_finite(rows, self._probe.scheduler)
        levels = [(1.0, ratio) if self._probe.exploding else self._finish_solver.noise(ratio) for ratio in self._ratios]
        return SolverTable(
            num_steps=points,
            state_size=self._size,
            rows=rows.astype(np.float32),
            next_row=np.array([*self._next, rows.shape[1] - 1], np.int64),
            entry_row=entry_row,
            leap_row=np.array([*self._leap, -1], np.int64),
            timesteps=np.array(self._t, np.float32),
            point_noise=np.array(levels, np.float32).T.copy(),
            refine_row=refine_row,
            refine_noise=np.array([self._finish_solver.noise(ratio) for _, ratio in refines], np.float32).T.copy(),
            finish_start=finish_start,
            finish_count=counts,
            init_noise_sigma=self._probe.init_noise_sigma,
        )

    def _base(self) -> NDArray[np.int64]:
        """Every pass an episode can come to, then those that end in a leap; returns the rows of order 0."""
        nodes = self._steps.nodes()
        place = {node: number for number, node in enumerate(nodes)}
        for node in nodes:
            row = self._row(node, 1)
            self._add(self._t[node.point], row, self._ratios[node.point], final=node.point == self._steps.last)
            self._next[-1] = place.get(self._steps.following(node, 1), place[node])
        for node in nodes:
            after = self._steps.leap_of(node)
            if after is not None:
                self._leap[place[node]] = len(self._passes)
                row = self._row(node, after.point - node.point)
                self._add(self._t[node.point], row, self._ratios[node.point])
                self._next[-1] = place[after]
        return np.array([place[Node(index, 0)] for index in range(len(self._t))], np.int64)

    def _row(self, node: Node, steps: int) -> Row:
        """A step over some intervals of the schedule."""
        if steps == 1 and set(node.gaps) <= {1}:
            return self._probe.row(node.point, node.order)
        if steps_equally(self._probe):
            ratios = self._ratios[node.point], self._ratios[node.point + steps]
            return replace(self._probe.row(node.point, node.order), transition=self._finish_solver.step(ratios))
        path, index = on_path(self._probe.scheduler, node, steps)
        return self._probe.row(index, node.order, path)

    def _refine_level(self, step: int) -> tuple[float, float]:
        """(t', ratio) of the refine passes at a step."""
        if self._probe.flow:
            return self._r_noise * self._t[step], self._r_noise * self._ratios[step]
        t = round(self._r_noise * self._t[step])
        return float(t), self._probe.ratio_at(t)

    def _finish(self, step: int, count: int) -> None:
        if not count:
            return
        start, shares = self._t[step + 1], [1 - j / count for j in range(count)]
        if self._probe.flow:
            times = [share * start for share in shares]
            ratios = [share * self._ratios[step + 1] for share in shares]
        else:
            times = [start, *(float(round(share * start)) for share in shares[1:])]
            ratios = [self._ratios[step + 1], *(self._probe.ratio_at(int(t)) for t in times[1:])]
        rows = self._finish_solver.finish([self._ratios[step], *ratios])
        for number, (t, row, ratio) in enumerate(zip(times, rows, ratios, strict=True)):
            # A variance-exploding latent becomes alpha z0 + sigma noise on its way into the first pass.
            scale = (1 + ratio**2) ** -0.5 if self._probe.exploding and number == 0 else 1.0
            self._add(t, _rescaled(row, scale), ratio, finish=True, final=number == count - 1)
            self._next[-1] = len(self._passes) - (number == count - 1)

    def _add(self, t: float, row: Row, ratio: float, *, finish: bool = False, final: bool = False) -> None:
        """Place a row's coefficients among the entries of the table's state.

        Args:
            t: what the network is told.
            row: coefficients among the row's own entries.
            ratio: noise level, for solvers that do not tell their clean prediction.
            finish: the row is a finish's: its history is entry 1.
            final: nothing is committed after the pass, so whatever its transition is does not matter.
        """
        size, row_size = self._size, len(row.transition)
        first = 1 if finish else 1 + self._extra_entry
        entries = [0, *range(first, first + row_size - 1)]
        columns = [*entries, size]
        clean = np.zeros(size + 1)
        if row.clean is None:
            clean[[0, size]] = self._finish_solver.clean(ratio)
        else:
            clean[columns] = row.clean
        transition = np.zeros((size, size + 1))
        if not final:
            transition[np.ix_(entries, columns)] = row.transition
            if self._extra_entry:
                transition[1] = clean
        self._passes.append(_Pass(t=t, row=row, clean=clean, transition=transition))
        self._next.append(len(self._passes) - 1)
        self._leap.append(-1)


def _rescaled(row: Row, scale: float) -> Row:
    """The same step from a latent that is ``scale`` times too large."""
    if row.clean is None or scale == 1.0:
        return row
    clean, transition = row.clean.copy(), row.transition.copy()
    clean[0] *= scale
    transition[:, 0] *= scale
    return Row(in_scale=scale * row.in_scale, clean=clean, transition=transition, noise=row.noise)


def _packed(one: _Pass) -> NDArray[np.float64]:
    head = [one.t, one.row.in_scale, one.clean[0], one.clean[-1], one.row.noise]
    return np.concatenate([head, one.transition.ravel()])
