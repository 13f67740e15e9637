"""The results page's section about hand-made opponents: who saves how much, and who is on the Pareto front."""

from __future__ import annotations

import math

from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult, paired
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.report.page_sections import PICTURES, mark

ALLOWED = 1.0
"""Passes that a rival may cost more than the policy it is told against: its steps are whole numbers."""
FRONT = "front.png"
"""The picture beside the section."""
_RIVALS = {"static sampler": {"static"}, "of the others": {"search", "control"}}
"""What tables call the best of them, and kinds of contestant."""
MARK = mark("hand-made opponents", "addiffusion pareto")


def told_metrics(result: ComparisonResult) -> list[str]:
    """Those of the section; the picture is of the first."""
    return [name for name in result.metrics() if name in ("scene_soft", "clip")] or [*result.metrics()][:1]


def handmade_section(result: ComparisonResult, *, command: str, machine: str) -> str:
    """Markdown of the section, cheapest first.

    Args:
        result: tables of all contestants.
        command: that made the comparison, word for word.
        machine: that it ran on, in words.
    """
    metrics = told_metrics(result)
    costs = {one.contestant.name: result.mean_spent(one, "cost") for one in result.all}
    tables = sorted((one for one in result.all if one.drawn.any()), key=lambda one: costs[one.contestant.name])
    fronts = {name: _front(tables, costs, name) for name in metrics}
    titles = [METRIC_TITLES.get(name, name) for name in metrics]
    head = ["contestant", "cost", "NFE", *titles, "s/image", "front"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 2)}---|"]
    for one in tables:
        name = one.contestant.name
        marks = ", ".join(title for title, metric in zip(titles, metrics, strict=True) if name in fronts[metric])
        cells = [f"{costs[name]:.1f}", f"{one.mean('nfe'):.1f}", *(_with_interval(one, metric) for metric in metrics)]
        shown = [one.contestant.title, *cells, f"{one.mean('seconds'):.3f}", marks]
        lines.append(f"| {' | '.join(shown)} |")
    count = len(set(result.full.prompt_id.tolist()))
    words = (
        f"Written by `{command}` on {machine}: {count} held-out prompts, one image each, the same seeds in every row. "
        "Cost counts guided passes; one without guidance is half of one. Front: nobody here is at least as good for "
        "at most this cost. Brackets are 95 % bootstrap intervals over prompts; means of few prompts change places "
        "easily. *guidance to 10*: guided passes up to step 10, none after; *guidance 5 30*: only from 5 to 29 and in "
        "the warm-up (arXiv:2404.07724); *leap2 from 3*: from there over two intervals at once; *best of 4 at 2*: four "
        "draws, of which the best at step 2 by CLIP score goes on; *redraw below s at 2*: a draw whose score there is "
        "below s is given up, twice at most. A solver in brackets is the static sampler that it is done on; else it is "
        "the agent's whole schedule. Seconds of tries include passes that were computed twice."
    )
    parts = [MARK, "## Hand-made opponents", words, f"![Quality against passes and time]({PICTURES}/{FRONT})"]
    dialled = (_dialled(result, tables, costs, name) for name in metrics)
    return "\n\n".join([*parts, *dialled, "Everybody, cheapest first:", "\n".join(lines)]) + "\n"


def _dialled(result: ComparisonResult, tables: list[MetricTable], costs: dict[str, float], metric: str) -> str:
    """The policy at each of its prices beside the best of each kind that costs at most ALLOWED passes more."""
    title = METRIC_TITLES.get(metric, metric)
    heads = [f"best {words} | its cost | difference" for words in _RIVALS]
    lines = [
        f"The policy at each price, cheapest first, against those with the best {title} score that cost at most "
        f"{ALLOWED:g} pass more, chosen by these very images, with 95 % BCa intervals:",
        "",
        f"| {' | '.join(['price', 'cost', 'of the full run', title, *heads])} |",
        f"|---:|---:|---:|---:|{'---|---:|---:|' * len(_RIVALS)}",
    ]
    for ours in (one for one in tables if one.contestant.kind == "agent"):
        cost = costs[ours.contestant.name]
        share = cost / costs[result.full.contestant.name]
        cells = [f"{ours.contestant.c_nfe:g}", f"{cost:.1f}", f"{share:.0%}", f"{ours.mean(metric):.3f}"]
        payable = [one for one in tables if costs[one.contestant.name] <= cost + ALLOWED]
        for kinds in _RIVALS.values():
            cells += _against_best(ours, [one for one in payable if one.contestant.kind in kinds], costs, metric)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _against_best(ours: MetricTable, rivals: list[MetricTable], costs: dict[str, float], metric: str) -> list[str]:
    """Cells: the best rival, its cost, and by how much the policy is better."""
    best = max(rivals, key=lambda one: one.mean(metric), default=None)
    if best is None:
        return ["-"] * 3
    found = paired(ours, best, metric)
    return [best.contestant.title, f"{costs[best.contestant.name]:.1f}", "-" if found is None else found.brief()]


def _front(tables: list[MetricTable], costs: dict[str, float], metric: str) -> set[str]:
    """Names of those that nobody beats: the best so far, from the cheapest on."""
    best, front = -math.inf, set[str]()
    for one in sorted(tables, key=lambda one: (costs[one.contestant.name], -one.mean(metric))):
        if one.mean(metric) > best:
            best = one.mean(metric)
            front.add(one.contestant.name)
    return front


def _with_interval(one: MetricTable, metric: str) -> str:
    found = one.interval(metric)
    return f"{one.mean(metric):.3f}" + ("" if found is None else f" [{found.low:.3f}, {found.high:.3f}]")
