"""The page itself: template, style and script of this folder, plotly.js, and the data, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from addiffusion.files import write_text
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.numbers import json_number
from evaluation.report.charts import charts, shown_metrics
from evaluation.report.report_data import ReportData
from evaluation.report.strips import case, strip
from evaluation.seconds import SECONDS_NOTE

_HERE = Path(__file__).parent


def write_page(path: Path, data: ReportData) -> Path:
    """Write one HTML file that needs no other, whole or not at all."""
    write_text(path, render(data))
    return path


def render(data: ReportData) -> str:
    """The page as text."""
    drawn = charts(data)
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=data,
            sections=_sections(drawn),
            tiles=_tiles(data.summary),
            metrics=shown_metrics(data.summary),
            titles=METRIC_TITLES,
            seconds_note=SECONDS_NOTE,
            strips=[strip(film) for film in data.films],
            best=[case(one) for one in data.best],
            worst=[case(one) for one in data.worst],
            style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
            script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704 - our own file
            plotly=Markup(_plotly()),  # noqa: S704 - the library's own file
            data=Markup(_json(drawn)),  # noqa: S704 - escaped below
        )
    )


@lru_cache(maxsize=1)
def _plotly() -> str:
    return get_plotlyjs().replace("</script", "<\\/script")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["bounds"] = _bounds
    return environment


def _sections(drawn: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for chart in drawn:
        found.setdefault(chart["section"], []).append(chart)
    return found


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline numbers, each with what it means."""
    if not summary:
        return []
    saved, nfe, cost = summary.get("nfe_saved"), summary.get("mean_nfe"), summary.get("mean_cost")
    differs = nfe is not None and cost is not None and round(nfe, 1) != round(cost, 1)
    tiles = [
        ("mean NFE", _number(nfe, 1), f"of {_number(summary.get('mean_nfe_full'), 0)}"),
        *([("mean cost", _number(cost, 1), "guided passes; one without guidance is half of one")] if differs else []),
        ("NFE saved", "-" if saved is None else f"{saved:.0%}", "against the whole schedule"),
        ("scene", _signed(summary.get("scene_diff")), f"against it, 95 %: {_bounds(summary.get('scene_diff_ci'))}"),
        ("CLIP", _signed(summary.get("clip_diff")), f"against it, 95 %: {_bounds(summary.get('clip_diff_ci'))}"),
        ("against random stop", _signed(summary.get("random_stop_diff")),
         f"same NFE, 95 %: {_bounds(summary.get('random_stop_diff_ci'))}"),
        ("NFE and tier", _signed(summary.get("spearman_nfe_tier")), "rank correlation over images"),
        ("oracle's gain", "-" if summary.get("oracle_share") is None else f"{summary['oracle_share']:.0%}",
         "share of what hindsight earns"),
    ]  # fmt: skip
    return [{"name": name, "value": value, "words": words} for name, value, words in tiles]


def _json(drawn: list[dict[str, Any]]) -> str:
    """JSON that can stand in a script element: no markup, no NaN."""
    text = json.dumps(_clean(drawn), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return json_number(value)


def _number(value: Any, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: Any) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _bounds(value: Any) -> str:
    return "-" if value is None else f"[{value[0]:+.3f}, {value[1]:+.3f}]"
