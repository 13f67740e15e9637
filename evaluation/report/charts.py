"""Charts as plotly.js takes them: plain data and layout; colours of text and background are the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.metric_table import SPENT
from evaluation.comparison.plots import KINDS
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.report.chart import Chart, Head, chart
from evaluation.report.figures import ACTION_MIX, STOPPING_TIMES, action_shares, named_shares, tier_name
from evaluation.report.report_data import ReportData, Spent
from evaluation.report.training_charts import training_charts
from evaluation.seconds import SECONDS_NOTE
from evaluation.style import GREY, TIER_COLORS


def charts(data: ReportData) -> list[Chart]:
    """Every chart there is something for; each has an id, a section, a title, a sentence, data and layout."""
    found: list[Chart] = []
    if data.iterations:
        found += training_charts(data.iterations)
    if data.spent:
        found += [_action_mix(data.spent, data.num_steps), _stopping_times(data.spent)]
    if data.summary.get("contestants"):
        found += [_pareto(data.summary, metric) for metric in shown_metrics(data.summary)]
        found += [_tiers(data.summary)] if _tier_names(data.summary) else []
    return found


def _action_mix(spent: Sequence[Spent], num_steps: int) -> Chart:
    *taken, _ = named_shares(action_shares(spent, num_steps=num_steps))
    series = [
        {
            "type": "bar",
            "name": name,
            "x": list(range(num_steps)),
            "y": [round(value, 4) for value in share.tolist()],
            "marker": {"color": color},
        }
        for name, color, share in taken
    ]
    return chart(ACTION_MIX, series, {"barmode": "stack", "bargap": 0.05})


def _stopping_times(spent: Sequence[Spent]) -> Chart:
    series = [
        {
            "type": "histogram",
            "name": tier_name(tier),
            "x": [one.nfe for one in spent if one.tier == tier],
            "xbins": {"size": 1},
            "marker": {"color": TIER_COLORS.get(tier, GREY)},
            "opacity": 0.75,
        }
        for tier in sorted({one.tier for one in spent})
    ]
    return chart(STOPPING_TIMES, series, {"barmode": "stack", "bargap": 0.08})


def _pareto(summary: Mapping[str, Any], metric: str) -> Chart:
    series: list[dict[str, Any]] = []
    for cost in ("nfe", "seconds"):
        for kind in KINDS:
            members = [one for one in summary["contestants"] if one["kind"] == kind and _known(one, metric, cost)]
            if members:
                series.append(_points(members, metric, cost, kind))
    name = METRIC_TITLES.get(metric, metric)
    head = Head(
        id=f"pareto-{metric}",
        section="Comparison",
        title=f"{name} against cost",
        words="Left is cheaper, up is better. Bars: 95 % bootstrap intervals over prompts. Time has policy, "
        f"observation and decoding in it. {SECONDS_NOTE}",
        x="NFE per image",
    )
    drawn = chart(head, series, {"xaxis": {"type": "log"}, "yaxis": {"title": {"text": name}}})
    return drawn | {"toggle": {"nfe": "NFE per image", "seconds": "seconds per image"}}


def _points(members: Sequence[Mapping[str, Any]], metric: str, cost: str, kind: str) -> dict[str, Any]:
    means = [one["mean"][metric] for one in members]
    bounds = [one["ci"][metric] or [mean, mean] for one, mean in zip(members, means, strict=True)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": KINDS[kind].title,
        "meta": cost,
        "visible": cost == "nfe",
        "x": [one["mean"][cost] for one in members],
        "y": means,
        "text": [one["title"] for one in members],
        "hovertemplate": "<b>%{text}</b><br>%{x:.3g} · %{y:.3f}<extra></extra>",
        "marker": {"color": KINDS[kind].color, "symbol": KINDS[kind].symbol, "size": 16 if kind == "agent" else 9},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - mean for (_, high), mean in zip(bounds, means, strict=True)],
            "arrayminus": [mean - low for (low, _), mean in zip(bounds, means, strict=True)],
            "thickness": 1,
            "width": 3,
        },
    }


def _tiers(summary: Mapping[str, Any]) -> Chart:
    metric = shown_metrics(summary)[0]
    chosen = [one for one in summary["contestants"] if one["name"] in _rivals(summary)]
    series = [
        {
            "type": "bar",
            "name": one["title"],
            "x": [f"tier {tier}" for tier in _tier_names(summary)],
            "y": [one["by_tier"][tier][metric] for tier in _tier_names(summary)],
            "text": [f"{one['by_tier'][tier]['nfe'] or 0:.1f} NFE" for tier in _tier_names(summary)],
            "textposition": "none",
            "hovertemplate": "<b>%{fullData.name}</b><br>%{x}: %{y:.3f}, %{text}<extra></extra>",
        }
        for one in chosen
    ]
    head = Head(
        id="tiers",
        section="Comparison",
        title=f"{METRIC_TITLES.get(metric, metric)} by tier",
        words="The agent, its whole schedule, and those that spend what it spends.",
        x="",
    )
    return chart(head, series, {"barmode": "group"})


def _rivals(summary: Mapping[str, Any]) -> list[str]:
    return ["agent", "full", "random-stop", "mean-stop", *summary.get("equal_nfe", [])[:2]]


def shown_metrics(summary: Mapping[str, Any]) -> list[str]:
    """Scores that the agent of a comparison has; none of a summary that is empty."""
    agent = summary["contestants"][0]["mean"] if summary else {}
    hidden = {*SPENT, "cost"}
    return [name for name, value in agent.items() if value is not None and name not in hidden]


def _tier_names(summary: Mapping[str, Any]) -> list[str]:
    return list(summary["contestants"][0]["by_tier"])


def _known(one: Mapping[str, Any], metric: str, cost: str) -> bool:
    return one["mean"].get(metric) is not None and bool(one["mean"].get(cost))
