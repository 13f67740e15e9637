"""Charts of a training's course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.report.chart import Chart, chart
from evaluation.report.figures import TRAINING, Panel, column, drawn_lines
from evaluation.report.report_data import Row
from evaluation.style import GREY

Series = list[dict[str, Any]]


def training_charts(rows: Sequence[Row]) -> list[Chart]:
    """Reward, NFE, actions, scores, entropy and losses by iteration, from the lines of metrics.jsonl."""
    return [chart(panel.head, *_drawn(panel, rows)) for panel in TRAINING]


def _drawn(panel: Panel, rows: Sequence[Row]) -> tuple[Series, dict[str, Any]]:
    iterations = column(rows, "iteration").tolist()
    series: Series = [
        {
            "type": "scatter", "mode": "lines+markers" if len(rows) < 3 else "lines", "name": line.name,
            "x": iterations, "y": values.tolist(),
            "line": {"color": line.color, "width": 2}, "marker": {"color": line.color},
        }
        for line, values in drawn_lines(panel, rows)
    ]  # fmt: skip
    if panel.shape == "band":
        low, high = series[:2]
        low |= {"line": {"width": 0}, "showlegend": False}
        high |= {"line": {"width": 0}, "fill": "tonexty", "fillcolor": _faint(panel.lines[1].color)}
        return series, {"yaxis": {"rangemode": "tozero"}}
    if panel.shape == "stack":
        return [one | {"stackgroup": panel.head.id} for one in series], {}
    if panel.shape == "apart":
        axes = [str(number + 1) if number else "" for number in range(len(series))]
        height = 1 / len(series)
        layout = {f"yaxis{axis}": {"domain": [1 - (n + 0.85) * height, 1 - n * height]} for n, axis in enumerate(axes)}
        series = [one | {"yaxis": f"y{axis}"} for one, axis in zip(series, axes, strict=True)]
        return series, {"xaxis": {"anchor": f"y{axes[-1]}"}, **layout}
    if panel.mark is not None:
        value, name = panel.mark
        line = {"color": GREY, "width": 1, "dash": "dot"}
        shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}
        words = {"xref": "paper", "x": 1, "y": value, "text": name, "showarrow": False, "yanchor": "bottom"}
        return series, {"shapes": [shape], "annotations": [words], "yaxis": {"rangemode": "tozero"}}
    return series, {}


def _faint(color: str) -> str:
    red, green, blue = bytes.fromhex(color[1:])
    return f"rgba({red},{green},{blue},0.2)"
