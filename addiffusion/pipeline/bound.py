"""The hard bound on what an image may take."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import SamplerSection
from addiffusion.errors import ArgumentError
from addiffusion.policy import FORBIDDEN_LOGIT
from addiffusion.sampling.slots import SlotInfo
from addiffusion.sampling.solver_tables.table import SolverTable


def within_cap(
    logits: NDArray[np.float32], info: SlotInfo, *, cap: int, table: SolverTable, refine_passes: int
) -> NDArray[np.float32]:
    """The logits without the actions after which the image could not be finished within ``cap`` NFE.

    Args:
        logits: (3,) of one decision.
        info: where the slot stands.
        cap: most NFE of the image.
        table: has the passes of each finish.
        refine_passes: k.
    """
    last = info.step >= table.num_steps - 1
    onward = 0 if last else 1 + int(table.finish_count[info.step + 1])
    needed = {
        Action.CONTINUE: onward,
        Action.STOP: int(table.finish_count[info.step]),
        Action.REFINE: refine_passes + onward,
    }
    bounded = logits.copy()
    for action, passes in needed.items():
        if info.nfe + passes > cap:
            bounded[action] = FORBIDDEN_LOGIT
    return bounded


def cap_of(max_cost: float | None, sampler: SamplerSection, table: SolverTable) -> int | None:
    """Most NFE of an image for ``max_cost``.

    Raises:
        ArgumentError: not even an image that stops at its first decision costs so little.
    """
    if max_cost is None:
        return None
    least = sampler.warmup_steps + 1 + int(table.finish_count[sampler.warmup_steps])
    if not max_cost >= least:
        raise ArgumentError(
            f"`max_cost` has to be at least {least}, what an image costs that stops at its first decision, but is "
            f"{max_cost:g}.",
            max_cost=max_cost,
        )
    return table.num_steps * 1000 if math.isinf(max_cost) else int(max_cost)
