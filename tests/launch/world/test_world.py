"""What the training of the embedded models shows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.embedded.making.context import Progress
from addiffusion.errors import RunFolderError
from launch.runtime.folder_lock import locked
from launch.world.training import _Parts, train_with_progress


def test_each_part_has_a_line_where_it_begins() -> None:
    stream = io.StringIO()
    with _Parts(Console(file=stream, width=60)) as shown:
        for part in ("autoencoder", "clip"):
            for step in (50, 100):
                shown.report(Progress(part=part, step=step, steps=100, seconds=1.0, metrics={"loss": 0.5}))
    assert stream.getvalue().splitlines() == ["steps of autoencoder: 100", "steps of clip: 100"]


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    settings = {"parts": ["tokenizer"], "device": "cpu", "seed": 0, "scale": 1.0}
    stream = io.StringIO()
    with locked(tmp_path), pytest.raises(RunFolderError, match="is in use by process"):
        train_with_progress(tmp_path, console=Console(file=stream), **settings)
    train_with_progress(tmp_path, console=Console(file=stream), **settings)
    assert stream.getvalue().startswith("tokenizer: 0 steps in 0s.")
