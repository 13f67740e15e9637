"""One process at a time writes a folder, or a file: a lock names host and process, and a dead owner does not keep it.

The owner touches the lock every few seconds. On the same host an owner that is gone is seen at once (process id and
start time); on another host, by a lock that nobody touches. Clocks are never compared between hosts.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from addiffusion.errors import RunFolderError
from addiffusion.files import make_folder, sweep, writing

_log = logging.getLogger(__name__)

LOCK = ".lock"
LEASE_S = 60.0
"""An owner on another host that was not heard of for so long is given up."""
_BEAT_S = 5.0
_LOOK_S = 0.25


class FolderLock:
    """A folder that this process alone writes, until it lets go."""

    def __init__(self, lease: SoftFileLease, folder: Path) -> None:
        self._lease = lease
        self._folder = folder

    def check(self) -> None:
        """Make sure that it is still ours: a process that was stopped for long may have been given up by another.

        Raises:
            RunFolderError: another process writes there now.
        """
        if self._lease.compromise is not None and not self._lease.is_lock_held_by_us:
            raise RunFolderError(
                f"{self._folder} was taken over by another process ({_owner(self._lease)}) while this one stood still: "
                "this one ends and leaves it to that one.",
                path=str(self._folder),
            )


@contextmanager
def locked(folder: Path, *, lease_s: float = LEASE_S) -> Iterator[FolderLock]:
    """Hold ``folder`` for the block; what kills left half written there is removed.

    A folder that is missing is made, and goes again if nothing was put there.

    Args:
        folder: what is written.
        lease_s: seconds after which such an owner that gives no sign of life is given up; the same for everybody.

    Raises:
        RunFolderError: another process holds it.
        OutputError: nothing can be written there.
    """
    fresh = not folder.exists()
    make_folder(folder)
    lease = _lease(folder / LOCK, lease_s)
    _acquire(lease, folder)
    try:
        sweep(folder)
        yield FolderLock(lease, folder)
    finally:
        lease.release()
        if fresh:
            with suppress(OSError):  # something lies in it
                folder.rmdir()


@contextmanager
def locked_file(file: Path) -> Iterator[None]:
    """Hold ``file``, which need not be there yet, for the block, by a lock beside it; its folder stays free.

    Raises:
        RunFolderError: another process holds it.
        OutputError: nothing can be written there.
    """
    make_folder(file.parent)
    lease = _lease(file.with_name(file.name + LOCK), LEASE_S)
    _acquire(lease, file)
    try:
        yield
    finally:
        lease.release()


def refuse_if_held(folder: Path, *, lease_s: float = LEASE_S) -> None:
    """Return once nobody holds ``folder``, which is left as it is.

    Raises:
        RunFolderError: another process holds it.
    """
    if (folder / LOCK).exists():
        lease = _lease(folder / LOCK, lease_s)
        _acquire(lease, folder)
        lease.release()


def is_vacant(folder: Path) -> bool:
    """Whether nothing lies at ``folder``, or a folder with at most a lock in it."""
    return not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK})


def _lease(lock: Path, lease_s: float) -> SoftFileLease:
    beat_s = min(_BEAT_S, lease_s / 3)
    return SoftFileLease(lock, lease_duration=lease_s, heartbeat_interval=beat_s, thread_local=False)


def _acquire(lease: SoftFileLease, held: Path) -> None:
    """Take the lock, at once or when its owner on another host has been silent for a whole lease."""
    seen: tuple[int, int] | None = None
    while not _taken(lease, held):
        now = _last_sign(lease)
        if now is None:  # let go in between
            continue
        if seen is None:
            if _is_here(lease):
                raise _held(lease, held)
            _log.warning("%s is locked by %s: looking for a sign of life (%g s)", held, _owner(lease), LEASE_S)
        elif now != seen:
            raise _held(lease, held)
        seen = now
        time.sleep(_LOOK_S)


def _taken(lease: SoftFileLease, held: Path) -> bool:
    with writing(Path(lease.lock_file)):
        try:
            lease.acquire(timeout=0)
        except Timeout:
            return False
        except LeaseSettingsMismatch as error:  # of another version
            raise _held(lease, held) from error
    return True


def _last_sign(lease: SoftFileLease) -> tuple[int, int] | None:
    """What changes whenever an owner touches its lock; None without a lock."""
    try:
        found = Path(lease.lock_file).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _is_here(lease: SoftFileLease) -> bool:
    """Whether the owner lives on this host: had it died here, its lock would have been taken at once."""
    owner = lease.owner
    with tempfile.TemporaryDirectory() as own, SoftFileLease(Path(own) / LOCK) as ours:
        return owner is not None and ours.owner is not None and owner.hostname == ours.owner.hostname


def _held(lease: SoftFileLease, held: Path) -> RunFolderError:
    return RunFolderError(
        f"{held} is in use by {_owner(lease)}: wait until that one ends, end it, or give another one.",
        path=str(held),
    )


def _owner(lease: SoftFileLease) -> str:
    owner = lease.owner
    return "a process" if owner is None else f"process {owner.pid} on {owner.hostname.partition('?')[0]}"
