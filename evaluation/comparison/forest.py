"""Forest plots: a policy's difference to others at each setting, and on average over them, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.comparison.across import FULL, RIVALS, SettingRow
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.significance.paired import Comparison
from evaluation.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, save, style

_LOOKS = ((VERMILLION, "o"), (BLUE, "s"), (GREEN, "^"), (ORANGE, "v"), (PURPLE, "D"), (SKY, "P"), (GREY, "X"))
_LINE_INCHES = 0.16
FOREST = "settings.png"


def plot_settings(
    settings: Mapping[str, Sequence[SettingRow]], policies: Sequence[SettingRow], path: Path, *, metric: str
) -> Path:
    """Left each setting against the whole schedule, right each rival on average over settings; bars are 95 % intervals.

    Args:
        settings: rows of the settings by policy, and their mean where there are several.
        policies: a row for each policy, and their mean where there are several.
        path: PNG file to write.
        metric: the score that is compared.
    """
    of_settings = {
        name: {row.title or "its setting": row.against[FULL] for row in rows if FULL in row.against}
        for name, rows in settings.items()
    }
    of_rivals = {
        row.title: {words: row.against[rival] for rival, words in RIVALS.items() if rival in row.against}
        for row in policies
    }
    with style():
        lines = max(_lines(of_settings), _lines(of_rivals))
        figure = Figure(figsize=(12, 1.6 + _LINE_INCHES * lines), layout="constrained")
        left, right = figure.subplots(1, 2)
        title = METRIC_TITLES.get(metric, metric)
        for axes, members, head in (
            (left, of_settings, "Against the whole schedule"),
            (right, of_rivals, "On average over settings, against"),
        ):
            _forest(axes, members)
            axes.set_title(head)
            axes.set_xlabel(f"difference in {title}; right of 0 the policy is better")
        named: dict[str, Artist] = {}
        for axes in (left, right):
            named |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), fontsize=9)
        return save(figure, path)


def _lines(members: Mapping[str, Mapping[str, Comparison]]) -> int:
    groups = {group for found in members.values() for group in found}
    return len(groups) * (len(members) + 1)


def _forest(axes: Axes, members: Mapping[str, Mapping[str, Comparison]]) -> None:
    """A line for each member within each group, from the top; the members' mean is the last and in ink."""
    groups = list(dict.fromkeys(group for found in members.values() for group in found))
    height = len(members) + 1
    for number, (name, found), look in zip(range(height), members.items(), cycle(_LOOKS)):
        color, marker = (INK, "d") if name == "mean" else look
        rows = [(groups.index(group) * height + number, one) for group, one in found.items()]
        axes.errorbar(
            [one.difference for _, one in rows],
            [line for line, _ in rows],
            xerr=[
                [one.difference - one.interval.low for _, one in rows],
                [one.interval.high - one.difference for _, one in rows],
            ],
            fmt=marker,
            markersize=5,
            color=color,
            elinewidth=1.2,
            label=name,
        )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks([index * height + (len(members) - 1) / 2 for index in range(len(groups))], groups)
    axes.set_ylim(len(groups) * height - 0.5, -1)
    axes.grid(visible=False, axis="y")
