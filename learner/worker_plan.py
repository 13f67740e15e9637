"""How many rollout workers a run starts with, and how many a cluster should have. Knows nothing of Ray."""

from __future__ import annotations

from dataclasses import dataclass

from addiffusion.config import RolloutSection


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """The rollout workers a run starts with."""

    worker_count: int
    resources: tuple[str, ...] = ()
    """Custom resources a worker takes one unit of, so that only nodes that offer them get one."""


def wanted_workers(rollout: RolloutSection, units: float) -> int:
    """Workers that a cluster should have which offers ``units`` of the resource that each takes one of."""
    offered = int(units) if rollout.max_workers is None else min(int(units), rollout.max_workers)
    return max(rollout.workers, offered)
