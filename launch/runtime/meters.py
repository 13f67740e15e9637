"""Metrics as Ray's: `ray_addiffusion_...` for Prometheus, tagged with whoever reports them."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from addiffusion.metrics import Meters, Metric
from launch.runtime import metrics as run_metrics
from reward_service import metrics as reward_metrics
from rollout_workers import metrics as rollout_metrics
from serving import metrics as serve_metrics


class RayMeters:
    """Carries ``metrics`` to Ray's metrics agent, from where Prometheus takes them."""

    def __init__(self, metrics: Sequence[Metric], **tags: str) -> None:
        self._instruments = {metric.name: _instrument(metric, tags) for metric in metrics}

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        """See ``Meters.record``; a counter is left alone where there is nothing to add."""
        instrument = self._instruments[metric.name]
        if isinstance(instrument, Gauge):
            instrument.set(float(value), tags=tags)
        elif isinstance(instrument, Histogram):
            instrument.observe(float(value), tags=tags)
        elif value > 0:
            instrument.inc(float(value), tags=tags)


def worker_meters(worker: str) -> Meters:
    """Of one rollout worker."""
    return RayMeters(rollout_metrics.ALL, worker=worker)


def replica_meters(replica: str) -> Meters:
    """Of one replica of the reward service."""
    return RayMeters(reward_metrics.ALL, replica=replica)


def engine_meters(replica: str) -> Meters:
    """Of one engine of a server."""
    return RayMeters(serve_metrics.ALL, replica=replica)


def run_meters(run: str) -> Meters:
    """Of the process that trains."""
    return RayMeters(run_metrics.ALL, run=run)


def _instrument(metric: Metric, tags: dict[str, str]) -> Gauge | Counter | Histogram:
    description = f"{metric.description} [{metric.unit}]"
    tag_keys = (*tags, *metric.tags)
    if metric.kind == "histogram":
        made = Histogram(metric.name, description, boundaries=list(metric.boundaries), tag_keys=tag_keys)
    else:
        made = (Gauge if metric.kind == "gauge" else Counter)(metric.name, description, tag_keys=tag_keys)
    made.set_default_tags(tags)
    return made
