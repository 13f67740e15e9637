"""Which nodes the roles run on: those that offer a resource of the role's name, where any node does.

A node says so when Ray starts on it: ``ray start --resources='{"rollout": 1}'``, or ``resources:`` of a node type in a
cluster's yaml. The learner lives in the driver, which a submitted job starts on the head.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from addiffusion.config import Config
from addiffusion.errors import ClusterError
from launch.runtime.gpus import GpuOffer
from learner.algorithm_config import Staffing
from learner.recruiting import wanted_workers

ROLLOUT: Final = "rollout"
"""One unit of it is one rollout worker."""
REWARD: Final = "reward"
"""Any amount of it lets replicas of the reward service run on a node."""
_ANY: Final = 0.001
_POLL_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Resources of a cluster, by Ray's names."""

    present: Mapping[str, float]
    """Of the nodes that are up."""
    possible: Mapping[str, float]
    """Of all nodes the autoscaler may start; empty without one."""
    nodes: Sequence[Mapping[str, float]] = ()
    """Of each node that is up."""

    def has(self, resource: str) -> bool:
        """Whether any node offers ``resource``, or could."""
        return self.present.get(resource, 0.0) > 0 or self.possible.get(resource, 0.0) > 0

    def most(self, resource: str) -> float:
        """What there can be of ``resource``."""
        return max(self.present.get(resource, 0.0), self.possible.get(resource, 0.0))

    def gpus(self) -> GpuOffer:
        """GPUs, and how many of them are where each role has to run."""
        per_worker = [node.get("GPU", 0.0) / node[ROLLOUT] for node in self.nodes if node.get(ROLLOUT, 0.0) >= 1]
        left = [node.get("GPU", 0.0) - node.get(ROLLOUT, 0.0) for node in self.nodes if node.get(REWARD, 0.0) > 0]
        return GpuOffer(
            total=self.most("GPU"), per_worker=min(per_worker, default=None), service=max(left, default=None)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the actors of a run ask Ray for besides CPUs and GPUs."""

    staffing: Staffing
    reward_resources: Mapping[str, float]
    gpus: GpuOffer


def place(config: Config, offer: Offer) -> Placement:
    """Pin each role to the nodes that offer its resource; without such nodes it runs anywhere."""
    units = offer.present.get(ROLLOUT, 0.0)
    pinned = offer.has(ROLLOUT)
    starting = min(wanted_workers(config.rollout, units), max(int(units), 1)) if pinned else config.rollout.workers
    return Placement(
        staffing=Staffing(worker_count=starting, resources=(ROLLOUT,) if pinned else ()),
        reward_resources={REWARD: _ANY} if offer.has(REWARD) else {},
        gpus=offer.gpus(),
    )


def find_placement(config: Config) -> Placement:
    """``place`` on the running cluster, once a node for the first rollout worker is up.

    Raises:
        ClusterError: the autoscaler brought none within ``cluster.start_timeout_s``.
    """
    deadline = time.monotonic() + config.cluster.start_timeout_s
    while (offer := running_offer()).has(ROLLOUT) and offer.present.get(ROLLOUT, 0.0) < 1:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"No node that offers the resource `{ROLLOUT}` came up in cluster.start_timeout_s="
                f"{config.cluster.start_timeout_s:g} s: `ray status` says why; slow clouds need a longer limit."
            )
        time.sleep(_POLL_S)
    return place(config, offer)


def running_offer() -> Offer:
    """What the cluster this process has joined offers."""
    import ray  # noqa: PLC0415 - only after its environment is set
    from ray._private.state import state  # noqa: PLC0415 - the autoscaler's limits have no public name

    return Offer(
        present=ray.cluster_resources(),
        possible=state.get_max_resources_from_cluster_config() or {},
        nodes=[node["Resources"] for node in ray.nodes() if node["Alive"]],
    )
