"""The hard bound on what an image may take."""

from __future__ import annotations

from addiffusion.config import SamplerSection
from addiffusion.errors import ArgumentError
from addiffusion.sampling.solver_tables.table import SolverTable


def check_bound(max_cost: float | None, sampler: SamplerSection, table: SolverTable) -> None:
    """Refuse a bound within which no image can be had.

    Raises:
        ArgumentError: not even an image that stops at its first decision costs so little.
    """
    least = sampler.warmup_steps + 1 + int(table.finish_count[sampler.warmup_steps])
    if max_cost is not None and not max_cost >= least:
        raise ArgumentError(
            f"`max_cost` has to be at least {least}, what an image costs that stops at its first decision, but is "
            f"{max_cost:g}.",
            max_cost=max_cost,
        )
