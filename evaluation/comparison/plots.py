"""The Pareto picture: quality against passes and against seconds, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from addiffusion.config.sampling import FinishSolverName
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, save, style


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How contestants of one kind are drawn."""

    title: str
    color: str
    marker: str
    """matplotlib's."""
    symbol: str
    """plotly's, of the same shape."""


KINDS: Mapping[str, Look] = {
    "agent": Look(title="agent", color=VERMILLION, marker="*", symbol="star"),
    "ablated": Look(title="agent without an action", color=VERMILLION, marker="X", symbol="x"),
    "static": Look(title="static samplers", color=BLUE, marker="o", symbol="circle"),
    "control": Look(title="stopping rules", color=GREY, marker="s", symbol="square"),
    "search": Look(title="search", color=PURPLE, marker="D", symbol="diamond"),
    "other": Look(title="guidance, distilled", color=ORANGE, marker="^", symbol="triangle-up"),
    "oracle": Look(title="oracle (hindsight)", color=GREEN, marker="P", symbol="cross"),
}


def plot_pareto(result: ComparisonResult, path: Path, *, metric: str) -> Path:
    """One panel against NFE, one against seconds per image; bars are 95 % bootstrap intervals over prompts."""
    with style():
        figure = Figure(figsize=(13, 5.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, cost, label in (
            (left, "nfe", "NFE per image"),
            (right, "seconds", "seconds per image, start and end of the set included"),
        ):
            _panel(axes, result, metric, cost)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(f"{label} (log)")
        left.set_ylabel(METRIC_TITLES.get(metric, metric))
        left.set_title("Quality against network passes")
        right.set_title("Quality against time: policy, observation and decoding included")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=9)
        return save(figure, path)


def _panel(axes: Axes, result: ComparisonResult, metric: str, cost: str) -> None:
    for kind, look in KINDS.items():
        members = [one for one in result.all if one.contestant.kind == kind and _shown(one, metric, cost)]
        for number, one in enumerate(members):
            interval = one.interval(metric)
            value = one.mean(metric)
            errors = None if interval is None else [[value - interval.low], [interval.high - value]]
            axes.errorbar(
                [one.mean(cost)],
                [value],
                yerr=errors,
                fmt=look.marker,
                markersize=13 if one is result.agent else 7 if kind != "agent" else 10,
                color=look.color,
                ecolor=look.color,
                elinewidth=1,
                alpha=1.0 if one is result.agent else 0.8,
                label=look.title if number == 0 else None,
                zorder=3 if kind == "agent" else 2,
            )
    _curve(axes, [one for one in result.all if one.contestant.kind == "agent"], metric, cost, VERMILLION)
    stops = [one for name, one in result.others.items() if name.startswith("stop-at-")]
    _curve(axes, stops, metric, cost, GREY)
    for solver, color in zip(get_args(FinishSolverName), (BLUE, SKY), strict=True):
        members = [one for name, one in result.others.items() if name.rpartition("-")[0] == solver]
        _curve(axes, members, metric, cost, color)
    agent = result.agent
    if _shown(agent, metric, cost):
        axes.annotate(
            agent.contestant.title,
            (agent.mean(cost), agent.mean(metric)),
            xytext=(8, -14),
            textcoords="offset points",
            color=INK,
            weight="bold",
            fontsize=9,
        )


def _curve(axes: Axes, members: Sequence[MetricTable], metric: str, cost: str, color: str) -> None:
    points = sorted((one.mean(cost), one.mean(metric)) for one in members if _shown(one, metric, cost))
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1, alpha=0.6, zorder=1)


def _shown(table: MetricTable, metric: str, cost: str) -> bool:
    return math.isfinite(table.mean(metric)) and math.isfinite(table.mean(cost)) and table.mean(cost) > 0
