"""The figures of a run: learning curves, action mix by step, stopping times by tier.

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

from addiffusion.actions import ACTION_NAMES, Action
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode
from evaluation.report.report_data import Row, Spent
from evaluation.style import ACTION_COLORS, BLUE, GREY, INK, ORANGE, PALE, PURPLE, TIER_COLORS, legend, save, style

_TERM_COLORS = dict(
    zip(TERM_NAMES, (BLUE, ACTION_COLORS[Action.STOP], ORANGE, ACTION_COLORS[Action.REFINE]), strict=True)
)


def plot_learning_curves(rows: Sequence[Row], path: Path) -> Path:
    """Reward terms, NFE, action mix, scores, entropy and losses by iteration, from the lines of metrics.jsonl."""
    with style():
        figure = Figure(figsize=(14, 7.6), layout="constrained")
        grid = figure.add_gridspec(2, 3)
        iterations = column(rows, "iteration")
        _reward_panel(figure.add_subplot(grid[0, 0]), iterations, rows)
        _nfe_panel(figure.add_subplot(grid[0, 1]), iterations, rows)
        _mix_panel(figure.add_subplot(grid[0, 2]), iterations, rows)
        _score_panels(figure, grid[1, 0], iterations, rows)
        _entropy_panel(figure.add_subplot(grid[1, 1]), iterations, rows)
        _loss_panel(figure.add_subplot(grid[1, 2]), iterations, rows)
        return save(figure, path)


def plot_action_mix(episodes: Sequence[Episode], path: Path, *, num_steps: int) -> Path:
    """What the images of a batch are doing at each step of the schedule, as shares of all of them."""
    shares = action_shares(episodes, num_steps=num_steps)
    with style():
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        axes = figure.add_subplot()
        bottom = np.zeros(num_steps)
        names = (*ACTION_NAMES, "finished or warming up")
        colors = (*(ACTION_COLORS[action] for action in Action), PALE)
        for name, color, share in zip(names, colors, shares, strict=True):
            axes.bar(np.arange(num_steps), share, bottom=bottom, width=1.0, color=color, label=name, linewidth=0)
            bottom = bottom + share
        axes.set(xlim=(-0.5, num_steps - 0.5), ylim=(0, 1), xlabel="schedule step i", ylabel="share of images")
        axes.set_title("What the policy does at each step")
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
        axes.set_yticks(range(len(tiers)), [f"tier {tier}" if tier else "all prompts" for tier in tiers])
        axes.set(xlabel="NFE spent on the image", ylim=(-0.55, max(len(tiers), 1) - 0.4))
        axes.set_xlim(0, max([num_steps, *(episode.nfe for episode in episodes)]) * 1.04)
        axes.set_title("When images are finished")
        axes.grid(visible=False, axis="y")
        return save(figure, path)


def action_shares(episodes: Sequence[Episode | Spent], *, num_steps: int) -> NDArray[np.float64]:
    """(4, num_steps) share of images that continue, stop, refine, or take no decision, at each schedule step."""
    counts = np.zeros((len(ACTION_NAMES), num_steps))
    for episode in episodes:
        np.add.at(counts, (np.asarray(episode.actions, np.int64), np.asarray(episode.steps, np.int64)), 1.0)
    shares = counts / max(len(episodes), 1)
    return np.vstack([shares, 1.0 - shares.sum(axis=0)])


def column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """One metric over the iterations; NaN where a line lacks it."""
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else float(value) for value in values])


def _reward_panel(axes: Axes, iterations: NDArray[np.float64], rows: Sequence[Row]) -> None:
    for name in TERM_NAMES:
        values = column(rows, f"term_{name}")
        if np.any(np.nan_to_num(values) != 0):
            axes.plot(iterations, values, color=_TERM_COLORS[name], label=name, linewidth=1.4)
    axes.plot(iterations, column(rows, "return"), color=INK, label="total")
    axes.axhline(0, color=GREY, linewidth=0.8)
    _finish(axes, "Reward per episode")
    legend(axes, columns=2)


def _nfe_panel(axes: Axes, iterations: NDArray[np.float64], rows: Sequence[Row]) -> None:
    axes.fill_between(
        iterations,
        column(rows, "nfe_p10"),
        column(rows, "nfe_p90"),
        color=BLUE,
        alpha=0.15,
        linewidth=0,
        label="10-90 %",
    )
    axes.plot(iterations, column(rows, "nfe"), color=BLUE, label="mean")
    axes.set_ylim(bottom=0)
    _finish(axes, "NFE per image")
    legend(axes)


def _mix_panel(axes: Axes, iterations: NDArray[np.float64], rows: Sequence[Row]) -> None:
    shares = [np.nan_to_num(column(rows, f"{name}_frac")) for name in ACTION_NAMES]
    colors = [ACTION_COLORS[action] for action in Action]
    axes.stackplot(iterations, *shares, labels=ACTION_NAMES, colors=colors, linewidth=0)
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    _finish(axes, "Action mix (share of decisions)")
    axes.legend(loc="lower center", ncols=len(ACTION_NAMES), fontsize=9, handlelength=1.2, frameon=True, framealpha=0.9)


def _score_panels(figure: Figure, spec: SubplotSpec, iterations: NDArray[np.float64], rows: Sequence[Row]) -> None:
    """One small panel per score: their units differ."""
    grid = spec.subgridspec(len(SCORE_NAMES), 1, hspace=0.08)
    for position, (name, color) in enumerate(zip(SCORE_NAMES, (BLUE, ORANGE, PURPLE), strict=True)):
        axes = figure.add_subplot(grid[position, 0])
        axes.plot(iterations, column(rows, f"score_{name}"), color=color)
        axes.annotate(
            name.replace("_", " "),
            (0, 1),
            xytext=(5, -4),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=color,
            weight="bold",
        )
        last = position == len(SCORE_NAMES) - 1
        _finish(axes, "Scores of the returned images" if position == 0 else "", label=last)
        axes.tick_params(labelbottom=last)
        axes.yaxis.set_major_locator(MaxNLocator(3))


def _entropy_panel(axes: Axes, iterations: NDArray[np.float64], rows: Sequence[Row]) -> None:
    axes.plot(iterations, column(rows, "entropy"), color=BLUE)
    axes.axhline(np.log(len(ACTION_NAMES)), color=GREY, linestyle=":", linewidth=1.2)
    axes.annotate(
        "uniform",
        (1, np.log(len(ACTION_NAMES))),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color=GREY,
    )
    axes.set_ylim(0, 1.2 * np.log(len(ACTION_NAMES)))
    _finish(axes, "Policy entropy (nats)")


def _loss_panel(axes: Axes, iterations: NDArray[np.float64], rows: Sequence[Row]) -> None:
    names = {"policy_loss": "policy loss", "vf_loss": "value loss", "approx_kl": "KL to the policy before"}
    for color, (name, label) in zip((BLUE, ORANGE, GREY), names.items(), strict=True):
        axes.plot(iterations, column(rows, name), color=color, label=label, linewidth=1.6)
    _finish(axes, "Losses")
    legend(axes)


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
