"""`addiffusion embedded train`: the training of the built-in world with something to look at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from addiffusion.embedded.making import context as training_context
from addiffusion.embedded.making.training import train_embedded
from launch.runtime.console import Stage, duration
from launch.runtime.folder_lock import locked


def train_with_progress(
    out: Path, *, parts: Sequence[str] | None, device: str, seed: int, scale: float, console: Console
) -> None:
    """Train models of the built-in world and show how far each is.

    Args:
        out: folder of the weights; a killed training goes on from what is there.
        parts: names of models; None: all.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: root of all randomness.
        scale: share of the full training's steps.
        console: where progress is shown.

    Raises:
        UsageError: a part, device or present checkpoint can't be used.
    """
    with locked(out), _Parts(console) as shown:
        reports = train_embedded(
            out=out,
            parts=parts,
            budget=training_context.TrainingBudget(scale=scale),
            device=device,
            seed=seed,
            on_progress=shown.report,
        )
    for report in reports:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        console.print(f"{report.part}: {report.steps} steps in {duration(report.seconds)}. {metrics}", highlight=False)


class _Parts:
    """A stage for each part, and one for what comes between two: scenes are rendered, a part is measured."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._part: str | None = None
        self._stage = Stage(console, "preparing")
        self._stack = ExitStack()

    def report(self, progress: training_context.Progress) -> None:
        """So far is the part that is being trained."""
        if progress.part != self._part:
            self._part = progress.part
            self._begin(Stage(self._console, f"steps of {progress.part}", progress.steps, first=progress.step))
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())
        self._stage.reach(progress.step, metrics)
        if progress.step == progress.steps:
            self._begin(Stage(self._console, f"measuring {progress.part}, preparing the next part"))

    def _begin(self, stage: Stage) -> None:
        self._stack.close()
        self._stage = self._stack.enter_context(stage)

    def __enter__(self) -> Self:
        self._begin(self._stage)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
