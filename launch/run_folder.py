"""What a run leaves on disk. Every file appears whole or not at all; metrics.jsonl only ever grows by whole lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter

from addiffusion.config import Config
from addiffusion.errors import RunFolderError
from addiffusion.files import write_text
from evaluation.numbers import json_number
from launch.config_files import load_resolved
from launch.config_text import to_yaml

_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the command of a submitted job."""
_CONFIG, _METRICS, _RESULT, _WARM_START = "config.yaml", "metrics.jsonl", "result.json", "warm_start.json"


def planned_path(config: Config, *, now: datetime | None = None) -> Path:
    """Where a new run will live.

    Raises:
        RunFolderError: something is there already, or nothing can be written there.
    """
    path = located(config.run.dir or Path("runs") / (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S"))
    if path.exists() or path.is_symlink():
        raise RunFolderError(
            f"run folder {path} exists already: give another run.dir, or go on with that run by resume={path}.",
            path=str(path),
        )
    home = next(parent for parent in path.absolute().parents if parent.exists())
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise RunFolderError(f"run folder {path} can't be made: {home} is no folder you may write to.", path=str(path))
    return path


def located(path: Path) -> Path:
    """``path`` with ``~`` resolved. In a submitted job, a relative one starts from the home folder.

    A job works in a copy of what was uploaded, which Ray deletes.
    """
    path = path.expanduser()
    return Path.home() / path if _IN_A_JOB in os.environ and not path.is_absolute() else path


def going_on(config: Config) -> Path | None:
    """The folder of the run to go on with by ``run.if_exists=resume``; None when there is none yet.

    A folder without a checkpoint, which a run leaves that was killed before its first, is put aside.
    """
    if config.run.if_exists != "resume" or config.run.dir is None:
        return None
    path = located(config.run.dir)
    if not (path / _CONFIG).is_file():
        return None
    if any((path / "checkpoints").glob("iteration-*")):
        return path
    path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}.unfinished"))
    return None


class RunFolder:
    """One run's folder: configuration, metrics, TensorBoard, checkpoints, plots, result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"
        self.references = path / "references.npz"
        self.config_file = path / _CONFIG
        self._writer: SummaryWriter | None = None

    @classmethod
    def create(cls, path: Path, config: Config) -> RunFolder:
        """Make the folder with the resolved configuration in it.

        Raises:
            RunFolderError: the folder has appeared in the meantime.
        """
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise RunFolderError(f"run folder {path} can't be made: {error.strerror}.", path=str(path)) from error
        folder = cls(path)
        write_text(path / _CONFIG, to_yaml(config))
        return folder

    @classmethod
    def open(cls, path: Path) -> tuple[RunFolder, Config]:
        """An existing run and the configuration it was started with.

        Raises:
            RunFolderError: there is no run at ``path``.
            ConfigError: its configuration can't be read.
        """
        if not (path / _CONFIG).is_file():
            raise RunFolderError(f"{path} is no run folder: it has no {_CONFIG}.", path=str(path))
        return cls(path), load_resolved(path / _CONFIG)

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Add one iteration to metrics.jsonl and to TensorBoard."""
        numbers = {name: json_number(value) for name, value in row.items()}
        with (self.path / _METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(numbers) + "\n")
        for name, value in numbers.items():
            if value is not None and name != "iteration":
                self._tensorboard().add_scalar(_tag(name), value, global_step=int(row["iteration"] or 0))
        self._tensorboard().flush()

    def metrics(self) -> list[dict[str, float | None]]:
        """All lines of metrics.jsonl; a last line cut short by a crash is left out."""
        file = self.path / _METRICS
        rows: list[dict[str, float | None]] = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def rewind(self, iteration: int) -> None:
        """Forget metrics of iterations after ``iteration``: a resumed run writes them again."""
        kept = [row for row in self.metrics() if (row["iteration"] or 0) <= iteration]
        write_text(self.path / _METRICS, "".join(json.dumps(row) + "\n" for row in kept))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_text(self.path / _RESULT, json.dumps(result, indent=2) + "\n")

    def write_warm_start(self, report: Mapping[str, Any]) -> None:
        """Write warm_start.json."""
        write_text(self.path / _WARM_START, json.dumps(report, indent=2) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tensorboard(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(logdir=str(self.path / "tensorboard"))
        return self._writer


def _tag(name: str) -> str:
    """TensorBoard groups by the part before a slash."""
    group = name.split("_", maxsplit=1)[0]
    return f"{group}/{name}" if group in {"term", "score", "stage", "nfe"} else f"run/{name}"
