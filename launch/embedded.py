"""`addiffusion embedded train`: the training of the built-in world with something to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from addiffusion.embedded import training_context
from addiffusion.embedded.training import train_embedded
from launch.console import duration


def train_with_progress(
    out: Path, *, parts: Sequence[str] | None, device: str, seed: int, scale: float, console: Console
) -> None:
    """Train ``parts`` (None: all) into ``out`` and show a bar per part.

    Raises:
        UsageError: a part, device or present checkpoint can't be used.
    """
    bars = Progress(
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}", style="dim"),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def show(progress: training_context.Progress) -> None:
        if progress.part not in tasks:
            tasks[progress.part] = bars.add_task(progress.part, total=progress.steps, metrics="")
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())
        bars.update(tasks[progress.part], completed=progress.step, metrics=metrics)

    with bars:
        reports = train_embedded(
            out=out,
            parts=parts,
            budget=training_context.TrainingBudget(scale=scale),
            device=device,
            seed=seed,
            on_progress=show,
        )
    for report in reports:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        console.print(f"{report.part}: {report.steps} steps in {duration(report.seconds)}. {metrics}", highlight=False)
