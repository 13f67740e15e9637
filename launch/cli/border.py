"""The border of the command line: how a command ends, and what is said of an error that nobody foresaw."""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console

from addiffusion import __version__
from addiffusion.configuration.shown import shortened
from addiffusion.errors import AdDiffusionError, ContractError, SlotError, UsageError
from addiffusion.extras import named_extras

EXIT_FAILED, EXIT_USAGE, EXIT_COLLAPSED = 1, 2, 3
EXIT_DEFECT = 70
"""``EX_SOFTWARE`` of sysexits.h."""
EXIT_INTERRUPTED = 130

_CommandLineError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""Click's own base, which some versions of typer bring along under another address."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DEFECTS = (ContractError, SlotError)
"""Of our own tree, but never the user's doing."""


@contextmanager
def border() -> Iterator[None]:
    """Every end of a command: one sentence and its exit code; whatever is no error of our tree is a defect.

    Raises:
        Exit: 2 for what the user gave, 1 for what failed, 70 for a defect, 130 after Ctrl-C.
    """
    print_everything()
    try:
        with named_extras():
            yield
    except (typer.Exit, typer.Abort, _CommandLineError):
        raise
    except KeyboardInterrupt as error:
        raise typer.Exit(EXIT_INTERRUPTED) from error
    except _DEFECTS as error:
        raise _defect(error, error.message) from error
    except AdDiffusionError as error:
        complain(error.message)
        raise typer.Exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED) from error
    except MemoryError as error:
        complain("this machine has not enough memory for what was asked; nothing of it is kept.")
        raise typer.Exit(EXIT_FAILED) from error
    except Exception as error:  # the one place where everything is caught
        raise _foreign(error) from error


def print_everything() -> None:
    """What the terminal's encoding lacks, or no encoding has, is printed as an escape instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """One sentence on stderr."""
    Console(stderr=True, soft_wrap=True).print(f"Error: {message}", style="red", markup=False, highlight=False)


def record(error: BaseException) -> Path | None:
    """Write what a report needs into a new file; None where no folder takes it.

    Tried in turn: the folder for temporary files, the home folder, the current one.
    """
    text = _report(error).encode("utf-8", "backslashreplace")
    for folder in _folders():
        with suppress(OSError):
            return _written(folder, text)
    return None


def _foreign(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno == errno.EPIPE:  # a reader such as `head` is gone: click ends quietly
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" while {error.filename} was written" if error.filename else ""
        complain(f"{error.strerror}{where}: make room, then give the same command again.")
        return typer.Exit(EXIT_FAILED)
    return _defect(error, f"{type(error).__name__}: {_first_line(error)}")


def _defect(error: BaseException, what: str) -> typer.Exit:
    file = record(error)
    if file is None:
        sys.stderr.write(_report(error))
    where = "what is printed above" if file is None else f"the file {file}"
    complain(f"this is a defect of addiffusion {__version__}, not of what you gave: please report it with {where}.")
    complain(what)
    return typer.Exit(EXIT_DEFECT)


def _first_line(error: BaseException) -> str:
    return shortened((str(error).strip() or "no message").splitlines()[0])


def _report(error: BaseException) -> str:
    """Version, machine, command and traceback."""
    lines = (
        f"addiffusion {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"command: {sys.argv!r}",
        f"folder: {_current()}",
        "",
        *traceback.format_exception(error),
    )
    return "\n".join(lines) + "\n"


def _current() -> str:
    with suppress(OSError):  # it may have been removed
        return str(Path.cwd())
    return "removed"


def _folders() -> Iterator[Path]:
    with suppress(OSError):  # no folder for temporary files takes a byte
        yield Path(tempfile.gettempdir())
    with suppress(RuntimeError):  # no home folder
        yield Path.home()
    yield Path()


def _written(folder: Path, text: bytes) -> Path:
    """The whole text in a file of its own, or no file."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    handle, name = tempfile.mkstemp(prefix=f"addiffusion-defect-{stamp}-", suffix=".txt", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name).absolute()
