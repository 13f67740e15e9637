"""Keeps the console for what a user can act on."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from addiffusion.errors import AdDiffusionError

logger = logging.getLogger(__name__)

REPORTS = "ray.log"
"""File of a folder that holds what Ray and RLlib report."""
_CHATTY = ("ray", "ray.rllib", "ray._common.deprecation", "ray.tune", "open_clip", "diffusers", "transformers", "timm")


def log_to(console: Console) -> None:
    """Send this process's warnings through ``console``, where they don't tear a live table; libraries only complain."""
    handler = RichHandler(console=console, show_path=False, show_level=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def muted_stderr(*, show_failure: bool = True) -> Iterator[None]:
    """Hold back what compiled code writes to standard error; unless told otherwise, show it if the block fails.

    Ray's core prints notes about RLlib's way to start actors there, and each of its attempts to reach a head.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            if show_failure:
                held.seek(0)
                os.write(real, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)


class RayReports(logging.Handler):
    """Writes what Ray and RLlib report to a file, which the first report makes.

    Reports are held back until ``keep_in`` says where; ``file`` is a temporary one where nobody has said so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._held: list[str] = []
        self._before: dict[logging.Logger, tuple[list[logging.Handler], int]] = {}
        self._file: Path | None = None
        self.written_count = 0
        self.dropped_count = 0
        """Reports that could not be written (a full disk)."""

    @property
    def any(self) -> bool:
        """Whether anything was reported."""
        return self.written_count + self.dropped_count + len(self._held) > 0

    def take_over(self) -> None:
        """Replace the handlers of Ray's loggers that have some, and have them tell errors only.

        RLlib's logger makes a handler of its own, and begins to tell hints, when it is imported.
        """
        known = [value for name, value in logging.root.manager.loggerDict.items() if name.partition(".")[0] == "ray"]
        for source in known:
            if isinstance(source, logging.Logger) and source.handlers and self not in source.handlers:
                self._before[source] = source.handlers, source.level
                source.handlers = [self]
                source.setLevel(logging.ERROR)

    def give_back(self) -> None:
        """Undo ``take_over``."""
        for source, (handlers, level) in self._before.items():
            source.handlers = handlers
            source.setLevel(level)
        self._before.clear()

    def keep_in(self, folder: Path) -> None:
        """Write to ``folder/ray.log`` from now on."""
        with self.lock or nullcontext():
            self._file = folder / REPORTS
            held, self._held = self._held, []
            for text in held:
                self._write(self._file, text)

    def place(self) -> Path:
        """Where the reports are."""
        if self._file is None:
            self.keep_in(Path(tempfile.mkdtemp(prefix="addiffusion-")))
        assert self._file is not None
        return self._file

    def emit(self, record: logging.LogRecord) -> None:
        """Write a report, or hold it back."""
        if self._file is None:
            self._held.append(self.format(record))
        else:
            self._write(self._file, self.format(record))

    def take(self, data: Mapping[str, Any], ignore_prefix: bool = False) -> None:  # noqa: ARG002 - Ray's signature
        """In place of the function by which Ray prints messages of its daemons to standard output."""
        for line in data["lines"]:
            logging.getLogger("ray.raylet").error(line)

    def _write(self, file: Path, text: str) -> None:
        try:
            with file.open("a", encoding="utf-8") as opened:
                opened.write(text + "\n")
        except OSError:
            self.dropped_count += 1
            return
        self.written_count += 1
        if self.written_count == 1:
            logger.warning("What Ray reports of this is in %s.", file)


@contextmanager
def ray_reports() -> Iterator[RayReports]:
    """Keep what Ray and RLlib report off the console; an error that leaves the block names the file it went to."""
    from ray._private import worker as core  # noqa: PLC0415 - only after Ray's environment is set

    reports, shown = RayReports(), core.print_to_stdstream
    reports.take_over()
    core.print_to_stdstream = reports.take
    try:
        yield reports
    except AdDiffusionError as error:
        if not reports.any:
            raise
        said = f"{error.message} Ray's own reports are in {reports.place()}."
        raise type(error)(said, **error.facts) from error
    finally:
        core.print_to_stdstream = shown
        reports.give_back()


@contextmanager
def without_farewell() -> Iterator[None]:
    """RLlib reports each actor that was ended before it as an error; in this block it reports nothing."""
    source = logging.getLogger("ray.rllib")
    level = source.level
    source.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        source.setLevel(level)
