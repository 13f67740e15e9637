"""The figures of a run as PNG: learning curves, action mix by step, stopping times by tier.

Figures are made with ``matplotlib.figure.Figure``, so no display and no global state is involved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from addiffusion.records import Episode
from evaluation.report.figures import (
    ACTION_MIX,
    STOPPING_TIMES,
    TRAINING,
    Panel,
    action_shares,
    column,
    drawn_lines,
    named_shares,
    tier_name,
)
from evaluation.report.report_data import Row
from evaluation.style import GREY, INK, TIER_COLORS, legend, save, style


def plot_learning_curves(rows: Sequence[Row], path: Path) -> Path:
    """Reward terms, NFE, action mix, scores, entropy and losses by iteration, from the lines of metrics.jsonl."""
    with style():
        figure = Figure(figsize=(14, 7.6), layout="constrained")
        grid = figure.add_gridspec(2, len(TRAINING) // 2)
        for number, panel in enumerate(TRAINING):
            spec = grid[divmod(number, len(TRAINING) // 2)]
            if panel.shape == "apart":
                _apart(figure, spec, panel, rows)
            else:
                _together(figure.add_subplot(spec), panel, rows)
        return save(figure, path)


def plot_action_mix(episodes: Sequence[Episode], path: Path, *, num_steps: int) -> Path:
    """What the images of a batch are doing at each step of the schedule, as shares of all of them."""
    shares = action_shares(episodes, num_steps=num_steps)
    with style():
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        axes = figure.add_subplot()
        bottom = np.zeros(num_steps)
        for name, color, share in named_shares(shares):
            axes.bar(np.arange(num_steps), share, bottom=bottom, width=1.0, color=color, label=name, linewidth=0)
            bottom = bottom + share
        axes.set(
            xlim=(-0.5, num_steps - 0.5),
            ylim=(0, max(1.0, bottom.max())),
            xlabel=ACTION_MIX.x,
            ylabel="share of images",
        )
        axes.set_title(ACTION_MIX.title)
        axes.grid(visible=False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, fontsize=9, handlelength=1.2)
        return save(figure, path)


def plot_stopping_times(episodes: Sequence[Episode], path: Path, *, num_steps: int) -> Path:
    """NFE of each image by tier: one dot per image, the tier's mean as a bar, always-continue as a dashed line."""
    tiers = sorted({episode.ticket.prompt.tier for episode in episodes})
    with style():
        figure = Figure(figsize=(9, 1.6 + 0.9 * max(len(tiers), 1)), layout="constrained")
        axes = figure.add_subplot()
        for row, tier in enumerate(tiers):
            nfe = np.array([episode.nfe for episode in episodes if episode.ticket.prompt.tier == tier])
            _dots(axes, row, nfe, TIER_COLORS.get(tier, GREY))
        axes.axvline(num_steps, color=INK, linestyle="--", linewidth=1.2)
        axes.annotate(
            "always continue",
            (num_steps, len(tiers) - 0.45),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
        )
        axes.set_yticks(range(len(tiers)), [tier_name(tier) for tier in tiers])
        axes.set(xlabel=STOPPING_TIMES.x, ylim=(-0.55, max(len(tiers), 1) - 0.4))
        axes.set_xlim(0, max([num_steps, *(episode.nfe for episode in episodes)]) * 1.04)
        axes.set_title(STOPPING_TIMES.title)
        axes.grid(visible=False, axis="y")
        return save(figure, path)


def _together(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    iterations = column(rows, "iteration")
    lines = drawn_lines(panel, rows)
    if panel.shape == "stack":
        shares = [np.nan_to_num(values) for _, values in lines]
        axes.stackplot(
            iterations,
            *shares,
            labels=[line.name for line, _ in lines],
            colors=[line.color for line, _ in lines],
            linewidth=0,
        )
        axes.set_ylim(0, 1)
        axes.margins(x=0)
    elif panel.shape == "band":
        (_, low), (edge, high), *lines = lines
        axes.fill_between(iterations, low, high, color=edge.color, alpha=0.15, linewidth=0, label=edge.name)
        axes.set_ylim(bottom=0)
    if panel.shape != "stack":
        for line, values in lines:
            axes.plot(iterations, values, color=line.color, label=line.name, linewidth=1.6)
    _finish(axes, panel.head.title)
    if panel.mark is not None:
        _mark(axes, *panel.mark)
    if panel.shape == "stack":
        axes.legend(loc="lower center", ncols=len(lines), fontsize=9, handlelength=1.2, frameon=True, framealpha=0.9)
    elif len(panel.lines) > 1:
        legend(axes, columns=3 if len(panel.lines) > 3 else 1)


def _mark(axes: Axes, value: float, name: str) -> None:
    axes.axhline(value, color=GREY, linestyle=":", linewidth=1.2)
    axes.annotate(
        name,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color=GREY,
    )
    axes.set_ylim(0, 1.2 * value)


def _apart(figure: Figure, spec: SubplotSpec, panel: Panel, rows: Sequence[Row]) -> None:
    """One small panel per line: their units differ."""
    iterations = column(rows, "iteration")
    grid = spec.subgridspec(len(panel.lines), 1, hspace=0.08)
    for position, (line, values) in enumerate(drawn_lines(panel, rows)):
        axes = figure.add_subplot(grid[position, 0])
        axes.plot(iterations, values, color=line.color)
        axes.annotate(
            line.name,
            (0, 1),
            xytext=(5, -4),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=line.color,
            weight="bold",
        )
        last = position == len(panel.lines) - 1
        _finish(axes, panel.head.title if position == 0 else "", label=last)
        axes.tick_params(labelbottom=last)
        axes.yaxis.set_major_locator(MaxNLocator(3))


def _finish(axes: Axes, title: str, *, label: bool = True) -> None:
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if label:
        axes.set_xlabel("iteration")


def _dots(axes: Axes, row: int, nfe: NDArray[np.int64], color: str) -> None:
    """Dots stacked upwards from the row's base line, so that equal values stay visible."""
    values, counts = np.unique(nfe, return_counts=True)
    rise = 0.7 / max(int(counts.max()), 6)
    for value, count in zip(values, counts, strict=True):
        axes.scatter(np.full(count, value), row - 0.3 + rise * np.arange(count), s=26, color=color, linewidth=0)
    axes.plot([nfe.mean()] * 2, [row - 0.38, row + 0.38], color=INK, linewidth=2)
    axes.annotate(
        f"{nfe.mean():.1f}",
        (float(nfe.mean()), row + 0.38),
        xytext=(4, -2),
        textcoords="offset points",
        fontsize=9,
        va="top",
    )
