"""Disks that are small: a real tmpfs, where the tests run as root."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.runtime.folder_lock import LOCK, locked


def leave_lock(folder: Path) -> None:
    """What a process of this host leaves in ``folder`` that is killed while it holds it."""
    with locked(folder):
        mine = (folder / LOCK).read_text()
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(re.sub(r"pid=\d+", "pid=999999999", mine))


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of ``kilobytes`` at ``folder``; the test is skipped where nobody may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,nr_inodes=4k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk of its own needs root: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def names(folder: Path) -> list[str]:
    """Everything below ``folder``, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
