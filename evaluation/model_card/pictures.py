"""The card's pictures: sample grids per tier, what few steps do, and the curves."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from addiffusion.config.sampling import SOLVER_TITLES, FinishSolverName
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.records import Prompt
from evaluation.model_card.curves import Curves
from evaluation.model_card.drawing import CardRunner, Setting
from evaluation.model_card.plan import FEW_STEPS_IMAGES, GRID_IMAGES
from evaluation.style import GREEN, INK, TIER_COLORS, VERMILLION, save, style

COLUMNS = 8
ROWS = GRID_IMAGES // COLUMNS


def draw_grid(runner: CardRunner, guidance: float, tier: int, path: Path) -> Path:
    """The first test prompts of a tier at full length, with the checker's verdict as the frame's colour.

    Args:
        runner: draws and judges.
        guidance: guidance scale of the images.
        tier: 1 to 3.
        path: the PNG to write.
    """
    own = _of_tier(runner, tier, GRID_IMAGES)
    setting = Setting(solver="ddim", steps=runner.plan.full_steps, guidance=guidance)
    images = runner.images(own, setting, f"grid {tier}")
    judged = runner.judge(images, own)
    with style():
        figure = Figure(figsize=(1.75 * COLUMNS, 2.35 * ROWS), layout="constrained")
        axes = figure.subplots(ROWS, COLUMNS, squeeze=False).ravel()
        for panel, image, prompt, passed in zip(axes, images, own, judged["scene_strict"], strict=False):
            _show(panel, image, color=GREEN if passed else VERMILLION)
            panel.set_title(textwrap.fill(prompt.text, 24), fontsize=7, fontweight="normal", loc="center")
        for panel in axes[len(own) :]:
            panel.set_axis_off()
        return save(figure, path)


def draw_few_steps(runner: CardRunner, guidance: float, path: Path) -> Path:
    """The same noise and prompt of tier 3 with ever more steps of DDIM."""
    steps = runner.plan.steps
    own = _of_tier(runner, TIERS[-1], FEW_STEPS_IMAGES)
    drawn = [
        runner.images(own, Setting(solver="ddim", steps=count, guidance=guidance), f"few steps {count}")
        for count in steps
    ]
    with style():
        figure = Figure(figsize=(1.6 * len(steps) + 2.4, 1.65 * len(own)), layout="constrained")
        axes = figure.subplots(len(own), len(steps), squeeze=False)
        for row, prompt in enumerate(own):
            for column, (count, images) in enumerate(zip(steps, drawn, strict=True)):
                passed = runner.judge(images[row : row + 1], (prompt,))["scene_strict"][0]
                _show(axes[row, column], images[row], color=GREEN if passed else VERMILLION)
                if row == 0:
                    axes[row, column].set_title(f"{count} steps", fontsize=9, loc="center")
            axes[row, 0].set_ylabel(
                textwrap.fill(prompt.text, 26), fontsize=7, rotation=0, ha="right", va="center", labelpad=8
            )
        return save(figure, path)


def draw_curves(curves: Curves, guidance: float, path: Path) -> Path:
    """Score along the full run, score of shorter runs, and when prompts are done; one colour per tier."""
    with style():
        figure = Figure(figsize=(15, 4.4), layout="constrained")
        along, shorter, done = figure.subplots(1, 3)
        _along_panel(along, curves, guidance)
        _shorter_panel(shorter, curves, guidance)
        _done_panel(done, curves, guidance)
        return save(figure, path)


def _along_panel(axes: Axes, curves: Curves, guidance: float) -> None:
    for run in (run for run in curves.full if run.guidance == guidance):
        steps = np.arange(1, len(run.soft) + 1)
        axes.plot(steps, run.soft, color=TIER_COLORS[run.tier], label=f"tier {run.tier}")
        axes.plot(steps, run.clip, color=TIER_COLORS[run.tier], linestyle=":", linewidth=1.4)
    axes.set(xlabel="step of the full DDIM run", ylabel="score of the decoded z0_pred", ylim=(0, 1.03))
    axes.set_title("Along the full run: scene score (lines), CLIP (dots)")
    axes.legend(loc="lower right", fontsize=9)


def _shorter_panel(axes: Axes, curves: Curves, guidance: float) -> None:
    for solver, dashes in zip(get_args(FinishSolverName), ("-", "--"), strict=True):
        for tier in TIERS:
            own = [p for p in curves.static if (p.solver, p.guidance, p.tier) == (solver, guidance, tier)]
            own.sort(key=lambda point: point.steps)
            axes.plot(
                [point.steps for point in own],
                [point.soft for point in own],
                color=TIER_COLORS[tier],
                linestyle=dashes,
                marker="o",
                markersize=4,
                label=SOLVER_TITLES[solver] if tier == TIERS[-1] else None,
            )
    axes.set(xlabel="steps in all", ylabel="scene score of the image", ylim=(0, 1.03))
    axes.set_title("Shorter runs")
    axes.legend(loc="lower right", fontsize=9)


def _done_panel(axes: Axes, curves: Curves, guidance: float) -> None:
    own = [run for run in curves.full if run.guidance == guidance]
    jitter = np.random.default_rng(0)
    for row, run in enumerate(own):
        axes.scatter(
            run.settled,
            row + jitter.uniform(-0.28, 0.28, len(run.settled)),
            s=14,
            alpha=0.55,
            color=TIER_COLORS[run.tier],
            linewidths=0,
        )
        axes.plot([run.settled.mean()] * 2, [row - 0.36, row + 0.36], color=INK)
    axes.set_yticks(range(len(own)), [f"tier {run.tier}" for run in own])
    axes.set(xlabel="step from which the score stays within 1 % of the final one")
    axes.set_title("When prompts are done (dots), and the mean")
    axes.grid(visible=False, axis="y")


def _of_tier(runner: CardRunner, tier: int, count: int) -> tuple[Prompt, ...]:
    return tuple(prompt for prompt in runner.prompts(count) if prompt.tier == tier)


def _show(axes: Axes, image: UInt8[np.ndarray, "h w 3"], *, color: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=2.2)
