"""The standings as one table, in Markdown or LaTeX: who spent what, and how good the images are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.numbers import number_text
from evaluation.seconds import FULL_QUEUE_NOTE, SECONDS_NOTE
from evaluation.significance.tables import escape_latex, escape_markdown, latex_row, pipe_table, tabular

METRIC_TITLES = {
    "scene_soft": "scene",
    "scene_strict": "strict",
    "clip": "CLIP",
    "aesthetic": "aesthetic",
    "image_reward": "preference",
    "dino_similarity": "DINO to full",
}
CONTROLS = ("random-stop", "mean-stop", "refined-stop")
"""Who spends the agent's own NFE without looking."""
Section = tuple[str, list[MetricTable]]


def sections(result: ComparisonResult) -> list[Section]:
    """Contestants by what they are compared for; nobody stands in two sections."""
    shown = {result.agent.contestant.name}

    def take(names: Sequence[str]) -> list[MetricTable]:
        fresh = [name for name in names if name not in shown and name in result.others]
        shown.update(fresh)
        return [result.others[name] for name in fresh]

    found: list[Section] = [
        ("The agent", [result.agent]),
        ("Its whole schedule", take(["full"])),
        ("Static samplers at the agent's NFE", take(result.matches.equal_nfe)),
        ("Static samplers in the agent's time", take(result.matches.equal_time)),
        ("Controls at the agent's NFE", take(CONTROLS)),
        ("Without an action", take(_of_kind(result, "ablated"))),
        ("Price dial", take(_of_kind(result, "agent"))),
        ("Static samplers", take(_of_kind(result, "static"))),
        ("Search and guidance", take([*_of_kind(result, "search"), *_of_kind(result, "other")])),
        ("Stopping rules", take(_of_kind(result, "control"))),
        ("With hindsight", take(_of_kind(result, "oracle"))),
    ]
    return [section for section in found if section[1]]


def standings_head(result: ComparisonResult, metrics: Sequence[str]) -> list[str]:
    """Heads of the columns: the sampler, what it spent, its scores."""
    return [
        "sampler",
        *(head for head, _, _ in spent_columns(result)),
        *(METRIC_TITLES.get(name, name) for name in metrics),
    ]


def spent_cells(result: ComparisonResult, table: MetricTable) -> list[str]:
    """What an image of one contestant cost on average, in the order of the heads."""
    return [number_text(result.mean_spent(table, name), digits) for _, name, digits in spent_columns(result)]


def spent_columns(result: ComparisonResult) -> list[tuple[str, str, int]]:
    """Head, name and digits of the columns that say something: cost where it is not NFE, a pace where it is known."""
    return [
        ("NFE", "nfe", 1),
        ("evals", "network_evals", 1),
        *([("cost", "cost", 1)] if result.cost_differs else []),
        ("s/image", "seconds", 3),
        *([("full queue", "seconds_full_queue", 3)] if _is_paced(result) else []),
    ]


def spent_note(result: ComparisonResult) -> str:
    """What the columns of seconds mean."""
    return f"{SECONDS_NOTE} {FULL_QUEUE_NOTE}" if _is_paced(result) else SECONDS_NOTE


def _is_paced(result: ComparisonResult) -> bool:
    """Whether somebody's images waited for slots, so that there is a pace without the end of the set."""
    return any(math.isfinite(one.mean("seconds_full_queue")) for one in result.all)


def markdown_standings(result: ComparisonResult) -> str:
    """A pipe table with a row per contestant under its section's title; 95 % intervals in brackets."""
    metrics = _metrics(result)
    head = standings_head(result, metrics)
    rows: list[list[str]] = []
    for title, members in sections(result):
        rows.append([f"**{title}**", *[""] * (len(head) - 1)])
        rows += [[escape_markdown(one.contestant.title), *_cells(result, one, metrics)] for one in members]
    return pipe_table(head, rows)


def latex_standings(result: ComparisonResult) -> str:
    r"""The same as a ``tabular`` for the booktabs package."""
    metrics = _metrics(result)
    head = standings_head(result, metrics)
    return f"% {spent_note(result)}\n" + tabular([*map(escape_latex, head)], _latex_rows(result, metrics, len(head)))


def markdown_breakdown(result: ComparisonResult, metric: str) -> str:
    """One quality score and the NFE of each contestant by tier."""
    tiers = sorted(set(result.agent.tier.tolist()) - {0})
    title = METRIC_TITLES.get(metric, metric)
    head = ["sampler", *(f"NFE, tier {tier}" for tier in tiers), *(f"{title}, tier {tier}" for tier in tiers)]
    rows: list[list[str]] = []
    for _, members in sections(result):
        for one in members:
            nfe = [number_text(one.mean("nfe", one.tier == tier), 1) for tier in tiers]
            scores = [number_text(one.mean(metric, one.tier == tier), 3) for tier in tiers]
            rows.append([escape_markdown(one.contestant.title), *nfe, *scores])
    return pipe_table(head, rows)


def markdown_categories(result: ComparisonResult) -> str:
    """What the embedded checker finds by kind of demand; empty where prompts can't be checked."""
    kinds = [name for name in result.agent.scores if name.startswith("category_")]
    if not kinds:
        return ""
    head = ["sampler", *(name.removeprefix("category_").replace("_", " ") for name in kinds)]
    return pipe_table(
        head,
        [
            [escape_markdown(one.contestant.title), *(number_text(one.mean(kind), 3) for kind in kinds)]
            for _, members in sections(result)
            for one in members
        ],
    )


def _of_kind(result: ComparisonResult, kind: str) -> list[str]:
    return [name for name, one in result.others.items() if one.contestant.kind == kind]


def _metrics(result: ComparisonResult) -> list[str]:
    return [*result.metrics(), "dino_similarity"]


def _cells(result: ComparisonResult, table: MetricTable, metrics: Sequence[str]) -> list[str]:
    return [*spent_cells(result, table), *(_with_interval(table, name) for name in metrics)]


def _with_interval(table: MetricTable, name: str) -> str:
    interval = table.interval(name)
    value = number_text(table.mean(name), 3)
    return value if interval is None or value == "-" else f"{value} [{interval.low:.3f}, {interval.high:.3f}]"


def _latex_rows(result: ComparisonResult, metrics: Sequence[str], width: int) -> Iterator[str]:
    for title, members in sections(result):
        yield r"\midrule"
        yield rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape_latex(title)}}}}} \\"
        for one in members:
            yield latex_row([escape_latex(one.contestant.title), *_cells(result, one, metrics)])
