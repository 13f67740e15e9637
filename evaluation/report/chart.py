"""One chart of a page: what stands over it, its series, its axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Chart = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a chart is called and where it stands."""

    id: str
    section: str
    title: str
    words: str
    """One or two sentences under the title."""
    x: str
    """Title of the horizontal axis."""


def chart(head: Head, data: list[dict[str, Any]], layout: Mapping[str, Any] | None = None) -> Chart:
    """A chart as the page's script takes it; keys of ``layout`` are plotly.js's, axes are merged."""
    axes: dict[str, Any] = {"xaxis": {"title": {"text": head.x}}, "yaxis": {}}
    for name, value in (layout or {}).items():
        axes[name] = {**axes[name], **value} if isinstance(axes.get(name), dict) else value
    return asdict(head) | {"data": data, "layout": axes}
