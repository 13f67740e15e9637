"""How many rollout workers a run has: known without Ray, so that a cluster can be looked at before Ray is imported."""

from __future__ import annotations

from dataclasses import dataclass

from addiffusion.config import RolloutSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Staffing:
    """The rollout workers a run starts with."""

    worker_count: int
    resources: tuple[str, ...] = ()
    """Custom resources a worker takes one unit of, so that only nodes that offer them get one."""


def wanted_workers(rollout: RolloutSection, units: float) -> int:
    """How many workers a cluster that offers ``units`` should have."""
    offered = int(units) if rollout.max_workers is None else min(int(units), rollout.max_workers)
    return max(rollout.workers, offered)
