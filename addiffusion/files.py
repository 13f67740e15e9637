"""Files and folders that are whole or not there, whoever is killed and whatever disk is full.

What is written stands under a draft's name first, one that nobody else uses, and takes its place in one step. Access
rights are those the umask says.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from addiffusion.errors import OutputError

_DRAFT = re.compile(r"\..+\.partial")
_ASIDE = ".put-aside"
_FIXES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "your quota there is used up; make room",
    errno.EROFS: "that file system is read-only; give a path that can be written",
    errno.EACCES: "give a path that you may write to",
    errno.EPERM: "give a path that you may write to",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOTDIR: "a part of that path is a file; give another path",
    errno.ENOENT: "make its folder first, or give another path",
}


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Say of every failure of the file system in the block that ``path`` could not be written.

    Raises:
        OutputError: one sentence with path, cause and fix; ``errno`` is among its facts.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        fix = _FIXES.get(error.errno or 0, "see to that, or give another path")
        raise OutputError(f"{path} can't be written ({reason}): {fix}.", path=str(path), errno=error.errno) from error


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A draft beside ``path``, to be written in the block, which takes its place when the block ends well.

    Raises:
        OutputError: the disk is full, or can't be written; the old file stays, and nothing is left beside it.
    """
    draft = _draft(path)
    with writing(path):
        try:
            yield draft
            draft.replace(path)
        except BaseException:
            _forget(draft)
            raise


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """A draft folder beside ``path``, to be filled in the block, which takes its place when the block ends well.

    A folder that is there is put aside (``put_aside``), and removed once the new one stands: ``put_back`` undoes
    what a kill between the two left.

    Raises:
        OutputError: the disk is full, or can't be written; the old folder stays, and nothing is left beside it.
    """
    draft = _draft(path)
    with writing(path):
        try:
            draft.mkdir(parents=True)
            yield draft
            _share_as_usual(draft)
            _take_place(draft, path)
        except BaseException:
            _forget(draft)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step."""
    with whole_file(path) as draft:
        draft.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to ``path``, whole or not at all; one that a kill cut short is closed first.

    Raises:
        OutputError: the disk is full, or can't be written; the file is as it was.
    """
    with writing(path), path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        try:
            _write_all(file.write, (b"\n" if torn else b"") + line.encode() + b"\n")
        except BaseException:
            file.truncate(size)
            raise


def existing_parent(path: Path) -> Path:
    """The nearest of the folders above ``path`` that is there."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it, where they are missing.

    Raises:
        OutputError: it can't be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder in one step for whoever looks: a kill on the way leaves none that is half there."""
    doomed = _draft(path)
    with writing(path):
        path.replace(doomed)
    _forget(doomed)


def put_aside(path: Path) -> Path:
    """Where ``whole_folder`` keeps the folder it replaces, until the new one stands."""
    return path.with_name(path.name + _ASIDE)


def sweep(folder: Path) -> None:
    """Remove the drafts that kills left anywhere in ``folder``; only for the process that alone writes there."""
    for path in [path for path in folder.rglob(".*.partial") if _DRAFT.fullmatch(path.name)]:
        _forget(path)


def put_back(folder: Path) -> None:
    """Undo what a kill left in ``folder``: drafts go, and what was put aside goes back, or goes.

    Only for the process that alone writes there, in a folder that holds nobody else's files.
    """
    sweep(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(_ASIDE) and path.is_dir():
            home = path.with_name(path.name.removesuffix(_ASIDE))
            if home.exists():
                remove_folder(path)
            else:
                path.replace(home)


def _draft(path: Path) -> Path:
    """A name of its own: two writers of one file never meet, and a long name gets no longer."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")


def _share_as_usual(folder: Path) -> None:
    """Files get the rights that ``folder`` got from the umask: some libraries write for the owner alone."""
    rights = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)


def _take_place(draft: Path, path: Path) -> None:
    if not path.exists():
        draft.replace(path)
        return
    old = put_aside(path)
    if old.exists():
        remove_folder(old)
    try:
        path.replace(old)
        draft.replace(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.replace(path)
        raise
    remove_folder(old)


def _forget(draft: Path) -> None:
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _write_all(write: Callable[[bytes], int | None], content: bytes) -> None:
    """Of an unbuffered file, which may take a part at a time."""
    while content:
        content = content[write(content) or 0 :]
