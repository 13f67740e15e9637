"""What a run leaves on disk. Every file appears whole or not at all; metrics.jsonl only ever grows by whole lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from addiffusion.checkpoint_files import list_checkpoints
from addiffusion.config import Config
from addiffusion.configuration.files import load_resolved
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import OutputError, RunFolderError
from addiffusion.files import append_line, existing_parent, write_text
from addiffusion.policy_files import RESULT_FILE
from evaluation.numbers import json_number
from launch.runtime.folder_lock import FolderLock, is_vacant, locked
from learner.checkpoint import config_digest

if TYPE_CHECKING:
    from launch.runtime.event_log import EventLog

_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the command of a submitted job."""
_CONFIG, _METRICS, _WARM_START = "config.yaml", "metrics.jsonl", "warm_start.json"


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
    home = existing_parent(path)
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise RunFolderError(f"run folder {path} can't be made: {home} is no folder you may write to.", path=str(path))
    return path


def located(path: Path) -> Path:
    """``path``; in a submitted job, a relative one starts from the home folder.

    A job works in a copy of what was uploaded, which Ray deletes.
    """
    return Path.home() / path if _IN_A_JOB in os.environ and not path.is_absolute() else path


def going_on(config: Config) -> Path | None:
    """The folder of the run to go on with by ``run.if_exists=resume``; None when there is none yet.

    A run that was ended before its first checkpoint is gone on with, too, if it was of this configuration. One of
    another configuration that has drawn nothing is put aside.

    Raises:
        RunFolderError: a run of another configuration has drawn references there.
    """
    if config.run.if_exists != "resume" or config.run.dir is None:
        return None
    path = located(config.run.dir)
    if not (path / _CONFIG).is_file():
        return None
    if list_checkpoints(path) or config_digest(load_resolved(path / _CONFIG)) == config_digest(config):
        return path
    if any(path.glob("references*")):
        raise RunFolderError(
            f"{path} holds the full-length images of a run of another configuration: give another run.dir, or go on "
            f"with that run by resume={path}.",
            path=str(path),
        )
    with suppress(FileNotFoundError):  # another start of the same command was faster
        path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}.unfinished"))
    return None


class RunFolder:
    """One run's folder: configuration, metrics, TensorBoard, checkpoints, plots, result."""

    def __init__(self, path: Path, lock: FolderLock | None = None) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"
        self.config_file = path / _CONFIG
        self._lock = lock

    @cached_property
    def _events(self) -> EventLog:
        from launch.runtime.event_log import EventLog  # noqa: PLC0415 - whoever reads a run needs no TensorBoard

        return EventLog(self.path / "tensorboard")

    @classmethod
    def create(cls, path: Path, config: Config) -> RunFolder:
        """Make the folder with the resolved configuration in it.

        Raises:
            RunFolderError: the folder has appeared in the meantime.
            OutputError: it can't be written.
        """
        _make_new(path)
        write_text(path / _CONFIG, to_yaml(config))
        return cls(path)

    @classmethod
    @contextmanager
    def begun(cls, path: Path, config: Config) -> Iterator[RunFolder]:
        """A new folder, as ``create`` makes it, that this process alone writes for the block.

        Raises:
            RunFolderError: the folder has appeared in the meantime.
            OutputError: it can't be written; nothing is left behind then.
        """
        _make_new(path)
        try:
            with locked(path) as lock:
                write_text(path / _CONFIG, to_yaml(config))
                with cls(path, lock) as folder:
                    yield folder
        except OutputError:
            if is_vacant(path):
                path.rmdir()
            raise

    @classmethod
    @contextmanager
    def resumed(cls, path: Path) -> Iterator[RunFolder]:
        """The folder of a run to go on with, which this process alone writes for the block.

        Raises:
            RunFolderError: another process works on it.
            OutputError: it can't be written.
        """
        with locked(path) as lock, cls(path, lock) as folder:
            yield folder

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
        """Add one iteration to metrics.jsonl and to TensorBoard.

        Raises:
            OutputError: the disk is full, or can't be written; metrics.jsonl has the whole line or nothing of it.
            RunFolderError: another process has taken the folder over.
        """
        if self._lock is not None:
            self._lock.check()
        numbers = {name: json_number(value) for name, value in row.items()}
        append_line(self.path / _METRICS, json.dumps(numbers))
        values = {_tag(name): value for name, value in numbers.items() if value is not None and name != "iteration"}
        self._events.add(values, step=int(row["iteration"] or 0))

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
        """Forget metrics of iterations after ``iteration``, in TensorBoard too: a resumed run writes them again."""
        self._events.rewind(iteration)
        kept = [row for row in self.metrics() if (row["iteration"] or 0) <= iteration]
        write_text(self.path / _METRICS, "".join(json.dumps(row) + "\n" for row in kept))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_text(self.path / RESULT_FILE, json.dumps(result, indent=2) + "\n")

    def write_warm_start(self, report: Mapping[str, Any]) -> None:
        """Write warm_start.json."""
        write_text(self.path / _WARM_START, json.dumps(report, indent=2) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()


def _make_new(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise RunFolderError(f"run folder {path} can't be made: {error.strerror}.", path=str(path)) from error


def _tag(name: str) -> str:
    """TensorBoard groups by the part before a slash."""
    group = name.split("_", maxsplit=1)[0]
    return f"{group}/{name}" if group in {"term", "score", "stage", "nfe"} else f"run/{name}"
