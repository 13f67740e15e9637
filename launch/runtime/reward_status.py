"""`addiffusion reward status` and `stop`: the reward services of a running cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType

from addiffusion.errors import ClusterError
from evaluation.tables import Table
from launch.runtime.cluster import NAMESPACE, ray_joined
from reward_service.actor import connect, service_names
from reward_service.actor import stop as stop_actors
from reward_service.stats import ServiceStats

ANSWER_S = 10.0
"""How long a service may take to say how it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One service and the counters of its replicas."""

    name: str
    replicas: tuple[ServiceStats, ...]


def statuses(address: str) -> list[ServiceStatus]:
    """Every reward service of the cluster at ``address``.

    Raises:
        ClusterError: no cluster can be joined there, or a service does not answer.
        ScorerError: a service stopped answering.
    """
    with ray_joined(address):
        return [
            ServiceStatus(
                name=name,
                replicas=tuple(connect(namespace=NAMESPACE, name=name, timeout_s=ANSWER_S).stats()),
            )
            for name in service_names(namespace=NAMESPACE)
        ]


def stop_service(name: str, address: str) -> None:
    """End the service called ``name``.

    Raises:
        ClusterError: no cluster can be joined there, or it has no such service.
    """
    with ray_joined(address):
        names = service_names(namespace=NAMESPACE)
        if name not in names:
            there_are = f"there are {', '.join(names)}" if names else "there is none"
            raise ClusterError(f"No reward service named {name!r} runs at {address}; {there_are}.", name=name)
        stop_actors(connect(namespace=NAMESPACE, name=name, timeout_s=ANSWER_S))


def tables(found: Sequence[ServiceStatus]) -> list[RenderableType]:
    """One table of replicas, and one of scorers per service."""
    if not found:
        return ["no reward service runs here"]
    return [_replica_table(found), *(_scorer_table(status) for status in found)]


def to_json(found: Sequence[ServiceStatus]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {"name": status.name, "replicas": [{**asdict(stats), **_derived(stats)} for stats in status.replicas]}
        for status in found
    ]


def _derived(stats: ServiceStats) -> dict[str, float]:
    return {
        "mean_batch_images": stats.mean_batch_images,
        "mean_wait_ms": stats.mean_wait_ms,
        "busy_images_per_s": stats.busy_images_per_s,
    }


def _replica_table(found: Sequence[ServiceStatus]) -> Table:
    shown = Table(title="reward services")
    shown.add_column("service")
    columns = (
        "images",
        "img/s busy",
        "batch",
        "wait ms",
        "queue",
        "cached",
        "errors",
        "hung",
        "halved",
        "late",
        "up s",
    )
    for name in columns:
        shown.add_column(name, justify="right")
    for status in found:
        for number, stats in enumerate(status.replicas, start=1):
            shown.add_row(f"{status.name} {number}/{len(status.replicas)}", *_cells(stats))
    return shown


def _cells(stats: ServiceStats) -> tuple[str, ...]:
    return (
        str(stats.image_count),
        f"{stats.busy_images_per_s:.1f}",
        f"{stats.mean_batch_images:.1f}",
        f"{stats.mean_wait_ms:.1f}",
        str(stats.waiting_image_count),
        str(stats.cache_hit_count),
        str(stats.item_error_count),
        str(stats.hung_count),
        str(stats.halved_count),
        str(stats.timeout_count),
        f"{stats.up_s:.0f}",
    )


def _scorer_table(status: ServiceStatus) -> Table:
    shown = Table(title=f"scorers of {status.name}")
    shown.add_column("scorer")
    for name in ("seconds", "share", "errors"):
        shown.add_column(name, justify="right")
    seconds = _summed([stats.scorer_s for stats in status.replicas])
    errors = _summed([stats.scorer_error_count for stats in status.replicas])
    whole = sum(seconds.values()) or 1.0
    for scorer in sorted(seconds | errors):
        spent = seconds.get(scorer, 0.0)
        shown.add_row(scorer, f"{spent:.1f}", f"{spent / whole:.0%}", f"{errors.get(scorer, 0):.0f}")
    return shown


def _summed(parts: Sequence[Any]) -> dict[str, float]:
    return {key: sum(part.get(key, 0) for part in parts) for key in {key for part in parts for key in part}}
