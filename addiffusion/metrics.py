"""How a role declares the numbers it reports while it works, each once; who carries them is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One series, or one per value of its tags."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""


@runtime_checkable
class Meters(Protocol):
    """Carries numbers to wherever they are watched."""

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        """Set a gauge, add to a counter, or observe a value of a histogram."""
        ...


class NoMeters:
    """Nobody watches."""

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        """Do nothing."""
