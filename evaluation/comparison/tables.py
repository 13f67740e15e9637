"""The standings as one table, in Markdown or LaTeX: who spent what, and how good the images are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evaluation.comparison.columns import Columns
from evaluation.comparison.summary import Standings
from evaluation.numbers import number_text
from evaluation.seconds import SECONDS_NOTE
from evaluation.significance.tables import escape_latex, escape_markdown

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
_SPENT = (("NFE", "nfe", 1), ("evals", "network_evals", 1), ("s/image", "seconds", 3))
Section = tuple[str, list[Columns]]


def sections(standings: Standings) -> list[Section]:
    """Contestants by what they are compared for; nobody stands in two sections."""
    shown = {standings.agent.contestant.name}

    def take(names: Sequence[str]) -> list[Columns]:
        fresh = [name for name in names if name not in shown and name in standings.others]
        shown.update(fresh)
        return [standings.others[name] for name in fresh]

    found: list[Section] = [
        ("The agent", [standings.agent]),
        ("Its whole schedule", take(["full"])),
        ("Static samplers at the agent's NFE", take(standings.matches.equal_nfe)),
        ("Static samplers in the agent's time", take(standings.matches.equal_time)),
        ("Controls at the agent's NFE", take(CONTROLS)),
        ("Price dial", take(_of_kind(standings, "agent"))),
        ("Static samplers", take(_of_kind(standings, "static"))),
        ("Search and guidance", take([*_of_kind(standings, "search"), *_of_kind(standings, "other")])),
        ("Stopping rules", take(_of_kind(standings, "control"))),
        ("With hindsight", take(_of_kind(standings, "oracle"))),
    ]
    return [section for section in found if section[1]]


def standings_head(metrics: Sequence[str]) -> list[str]:
    """Heads of the columns: the sampler, what it spent, its scores."""
    return ["sampler", *(head for head, _, _ in _SPENT), *(METRIC_TITLES.get(name, name) for name in metrics)]


def spent_cells(columns: Columns) -> list[str]:
    """What an image cost on average, in the order of the heads."""
    return [number_text(columns.mean(name), digits) for _, name, digits in _SPENT]


def markdown_standings(standings: Standings) -> str:
    """A pipe table with a row per contestant under its section's title; 95 % intervals in brackets."""
    metrics = _metrics(standings)
    head = standings_head(metrics)
    lines = [_pipe(head), _pipe(["---", *["---:"] * (len(head) - 1)])]
    for title, members in sections(standings):
        lines.append(_pipe([f"**{title}**", *[""] * (len(head) - 1)]))
        lines += [_pipe([escape_markdown(one.contestant.title), *_cells(one, metrics)]) for one in members]
    return "\n".join(lines) + "\n"


def latex_standings(standings: Standings) -> str:
    r"""The same as a ``tabular`` for the booktabs package."""
    metrics = _metrics(standings)
    head = standings_head(metrics)
    body = list(_latex_rows(standings, metrics, len(head)))
    columns = "l" + "r" * (len(head) - 1)
    lines = [
        f"% {SECONDS_NOTE}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(escape_latex, head)) + r" \\",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def markdown_breakdown(standings: Standings, metric: str) -> str:
    """One quality score and the NFE of each contestant by tier."""
    tiers = sorted(set(standings.agent.tier.tolist()) - {0})
    title = METRIC_TITLES.get(metric, metric)
    head = ["sampler", *(f"NFE, tier {tier}" for tier in tiers), *(f"{title}, tier {tier}" for tier in tiers)]
    lines = [_pipe(head), _pipe(["---", *["---:"] * (len(head) - 1)])]
    for _, members in sections(standings):
        for one in members:
            nfe = [number_text(one.mean("nfe", one.tier == tier), 1) for tier in tiers]
            scores = [number_text(one.mean(metric, one.tier == tier), 3) for tier in tiers]
            lines.append(_pipe([escape_markdown(one.contestant.title), *nfe, *scores]))
    return "\n".join(lines) + "\n"


def markdown_categories(standings: Standings) -> str:
    """What the embedded checker finds by kind of demand; empty where prompts can't be checked."""
    kinds = [name for name in standings.agent.scores if name.startswith("category_")]
    if not kinds:
        return ""
    head = ["sampler", *(name.removeprefix("category_").replace("_", " ") for name in kinds)]
    lines = [_pipe(head), _pipe(["---", *["---:"] * (len(head) - 1)])]
    for _, members in sections(standings):
        lines += [
            _pipe([escape_markdown(one.contestant.title), *(number_text(one.mean(kind), 3) for kind in kinds)])
            for one in members
        ]
    return "\n".join(lines) + "\n"


def _of_kind(standings: Standings, kind: str) -> list[str]:
    return [name for name, one in standings.others.items() if one.contestant.kind == kind]


def _metrics(standings: Standings) -> list[str]:
    return [*standings.metrics(), "dino_similarity"]


def _cells(columns: Columns, metrics: Sequence[str]) -> list[str]:
    return [*spent_cells(columns), *(_with_interval(columns, name) for name in metrics)]


def _with_interval(columns: Columns, name: str) -> str:
    interval = columns.interval(name)
    value = number_text(columns.mean(name), 3)
    return value if interval is None or value == "-" else f"{value} [{interval.low:.3f}, {interval.high:.3f}]"


def _latex_rows(standings: Standings, metrics: Sequence[str], width: int) -> Iterator[str]:
    for title, members in sections(standings):
        yield r"\midrule"
        yield rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape_latex(title)}}}}} \\"
        for one in members:
            cells = [escape_latex(one.contestant.title), *_cells(one, metrics)]
            yield " & ".join(cells) + r" \\"


def _pipe(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
