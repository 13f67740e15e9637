"""Metrics for Prometheus where there is no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from addiffusion.metrics import Metric
from serving.metrics import ALL

_PREFIX: Final = "ray_"


class PrometheusMeters:
    """Carries ``metrics`` to whoever scrapes this process. The names are Ray's: one dashboard shows both."""

    def __init__(self, metrics: Sequence[Metric] = ALL) -> None:
        self._registry = CollectorRegistry()
        self._instruments = {metric.name: self._instrument(metric) for metric in metrics}

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        """See ``Meters.record``."""
        instrument = self._instruments[metric.name]
        if tags:
            instrument = instrument.labels(**tags)
        if isinstance(instrument, Gauge):
            instrument.set(value)
        elif isinstance(instrument, Histogram):
            instrument.observe(value)
        else:
            instrument.inc(value)

    def page(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)

    def _instrument(self, metric: Metric) -> Counter | Gauge | Histogram:
        described = f"{_PREFIX}{metric.name}", f"{metric.description} [{metric.unit}]", metric.tags
        if metric.kind == "histogram":
            return Histogram(*described, buckets=metric.boundaries, registry=self._registry)
        return (Gauge if metric.kind == "gauge" else Counter)(*described, registry=self._registry)
