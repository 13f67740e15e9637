"""The results page of the embedded world, written from one comparison: tables, verdicts, where others win."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from addiffusion.files import write_text
from evaluation.comparison.summary import ComparisonResult, comparisons
from evaluation.comparison.tables import (
    CONTROLS,
    METRIC_TITLES,
    markdown_breakdown,
    markdown_categories,
    markdown_standings,
    spent_note,
)
from evaluation.report.page_sections import PICTURES, sections_of, write_pictures
from evaluation.significance.tables import markdown_table

"""Folder of the page's pictures beside it."""
_LOSES = "**loses**"


def results_page(result: ComparisonResult, summary: Mapping[str, Any], *, command: str, machine: str) -> str:
    """Markdown of the page. Every number is the comparison's; every sentence about who wins follows from them.

    Args:
        result: tables of all contestants.
        summary: the comparison's ``summary.json``.
        command: that made the comparison, word for word.
        machine: that it ran on, in words.
    """
    metric = next(iter(result.metrics()), "clip")
    found = comparisons(result)
    categories = markdown_categories(result)
    stops = sum(name.startswith("stop-at-") for name in result.others)
    parts = [
        "# Results in the embedded world",
        f"Written by `{command}` on {machine}: {summary['images']} images of {summary['prompts']} held-out prompts, "
        f"{summary['repeats']} seeds each, the same prompts and seeds in every row. Seeds of one prompt are "
        "averaged before anything is tested; brackets are 95 % BCa bootstrap intervals over prompts. Seconds are "
        "shares of the wall clock on that machine, with policy, observation, decoding and one scoring of the "
        f"returned image. {spent_note(result)}",
        "## In short",
        "\n".join(f"* {line}" for line in verdicts(result, summary)),
        "## Everybody",
        markdown_standings(result).rstrip(),
        f"![Quality against NFE and against time]({PICTURES}/pareto_{metric}.png)",
        "## Agent minus each",
        "Bold: significant at 5 % after Holm over this table.",
        markdown_table(found).rstrip() if found else "Too few prompts to compare.",
        "## By tier",
        markdown_breakdown(result, metric).rstrip(),
        *(["## By kind of demand", categories.rstrip()] if categories else []),
        *_absent(result),
        "## How it was matched",
        "* At the agent's NFE: each solver with the fewest steps that spend at least the agent's mean NFE, so that the "
        "doubt is the opponent's.\n"
        "* In the agent's time: step counts from a line through the static samplers timed in this comparison.\n"
        "* Random stop: the agent's own NFE, dealt out to other images by chance. Fixed stop: the two steps around the "
        "agent's mean NFE; after one refine, as much earlier as the refine takes passes.\n"
        f"* Oracle: per image the best of {stops} stops and the whole schedule, with hindsight. Perfect stopping would "
        "earn at least that, so the agent's share of it is at most what is said above.",
    ]
    return "\n\n".join(parts) + "\n"


def verdicts(result: ComparisonResult, summary: Mapping[str, Any]) -> list[str]:
    """Sentences about the goal, each for or against the agent as the numbers have it."""
    lines = [
        f"The agent spends {summary['mean_nfe']:.1f} NFE of {summary['mean_nfe_full']:.0f}: "
        f"{summary['nfe_saved']:.0%} are saved."
    ]
    lines += [_no_worse(row) for row in summary["non_inferiority"]]
    metric = next(iter(result.metrics()), "clip")
    names = list(dict.fromkeys([*result.matches.equal_nfe, *CONTROLS, *result.matches.equal_time]))
    lines += _duels(result, names, metric)
    if metric != "clip":
        lost = [line for line in _duels(result, names, "clip") if _LOSES in line]
        lines += lost or ["In CLIP score it loses against none of these."]
    rho, share = summary.get("spearman_nfe_tier"), summary.get("oracle_share")
    if rho is not None:
        lines.append(f"Rank correlation of NFE with the prompt's tier: {rho:+.2f}.")
    if share is not None:
        lines.append(f"The agent has {share:.0%} of the reward the oracle gains over the whole schedule.")
    return lines


def _no_worse(row: Mapping[str, Any]) -> str:
    low, high = row["ci"]
    verb = "is not worse than" if row["established"] else "is **not** shown to be no worse than"
    opponent = "its whole schedule" if row["against"] == "full" else "DDIM-50"
    return (
        f"In {METRIC_TITLES.get(row['metric'], row['metric'])} it {verb} {opponent} by a margin of "
        f"{row['margin']:.4f}: {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]."
    )


def _duels(result: ComparisonResult, names: Sequence[str], metric: str) -> Iterator[str]:
    title = METRIC_TITLES.get(metric, metric)
    for name in names:
        found = result.against(name, metric)
        if found is None:
            continue
        low, high = found.interval.low, found.interval.high
        outcome = "wins" if low > 0 else _LOSES if high < 0 else "can't be told apart"
        opponent = result.others[name]
        place = f"{opponent.contestant.title} ({opponent.mean('nfe'):.1f} NFE, {opponent.mean('seconds'):.3f} s)"
        joint = "from" if outcome.startswith("can't") else "against"
        yield f"In {title} the agent {outcome} {joint} {place}: {found.brief()}."


def _absent(result: ComparisonResult) -> list[str]:
    if not result.skipped:
        return []
    lines = [f"* {name}: {reason.removesuffix('.')}." for name, reason in result.skipped.items()]
    return ["## Who took no part", "\n".join(lines)]


def write_results(path: Path, text: str, plots: Path) -> None:
    """Write the page, and the comparison's Pareto pictures beside it; sections of other commands stay."""
    write_pictures(path, sorted(plots.glob("pareto_*.png")))
    sections = sections_of(path.read_text(encoding="utf-8")) if path.is_file() else []
    write_text(path, "\n\n".join(part.strip("\n") for part in (text, *sections)) + "\n")
