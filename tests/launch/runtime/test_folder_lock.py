"""One process at a time writes a folder, and a dead one does not keep it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from addiffusion.errors import OutputError, RunFolderError
from launch.runtime.folder_lock import LOCK, FolderLock, is_vacant, locked, refuse_if_held

HOLD = """
import sys, time
from pathlib import Path
from launch.runtime.folder_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``folder`` until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def marker(host: str, *, pid: int = 1, start: int | None = None, lease_s: float = 1.5) -> str:
    """The lock of somebody else, as filelock writes it."""
    lines = ["filelock/2", f"pid={pid}", f"host={host}", "mode=lease", f"token={'0' * 32}", f"duration={lease_s!r}"]
    return "".join(f"{line}\n" for line in [*lines, *([] if start is None else [f"start={start}"])])


def test_a_second_process_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        start = time.monotonic()
        said = rf"is in use by process {process.pid} on {socket.gethostname()}: wait"
        with pytest.raises(RunFolderError, match=said):
            refuse_if_held(tmp_path)
        assert time.monotonic() - start < 2
        process.communicate("", timeout=30)
    refuse_if_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_keeps_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait(30)
    assert (tmp_path / LOCK).is_file()
    assert is_vacant(tmp_path)
    start = time.monotonic()
    with locked(tmp_path) as lock:
        lock.check()
        assert f"pid={os.getpid()}\n" in (tmp_path / LOCK).read_text()
    assert time.monotonic() - start < 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_nothing_was_put_goes_again(tmp_path: Path) -> None:
    with locked(tmp_path / "deep" / "one"):
        (tmp_path / "deep" / "one" / "file").touch()
    with locked(tmp_path / "deep" / "two"):
        (tmp_path / "deep" / "two" / ".0123456789abcdef.partial").touch()
        with locked(tmp_path / "deep" / "three"):
            pass
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["one", "two"]
    with locked(tmp_path / "deep" / "two"):
        assert [path.name for path in (tmp_path / "deep" / "two").iterdir()] == [LOCK]


def test_a_number_that_another_process_got_since_keeps_nothing(tmp_path: Path) -> None:
    with locked(tmp_path):
        mine = (tmp_path / LOCK).read_text()
    host = next(line for line in mine.splitlines() if line.startswith("host=")).removeprefix("host=")
    (tmp_path / LOCK).write_text(marker(host, pid=os.getpid(), start=12345))
    with locked(tmp_path):
        pass


def test_an_owner_on_another_host_keeps_it_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    lock = tmp_path / LOCK
    lock.write_text(marker("elsewhere"))
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.3):
            lock.touch()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunFolderError, match="in use by process 1 on elsewhere"):
            refuse_if_held(tmp_path, lease_s=1.5)
    finally:
        done.set()
        thread.join(10)


def test_an_owner_on_another_host_that_is_silent_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOCK).write_text(marker("elsewhere"))
    start = time.monotonic()
    with locked(tmp_path, lease_s=1.5) as lock:
        lock.check()
    assert 1.4 < time.monotonic() - start < 20
    assert "is locked by process 1 on elsewhere: looking for a sign of life" in caplog.text


def check_for(lock: FolderLock, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lock.check()
        time.sleep(0.05)


def test_who_was_given_up_while_it_stood_still_ends(tmp_path: Path) -> None:
    with locked(tmp_path, lease_s=0.6) as lock:
        lock.check()
        (tmp_path / "other").write_text(marker("elsewhere", lease_s=0.6))
        (tmp_path / "other").replace(tmp_path / LOCK)  # another host took it over
        with pytest.raises(RunFolderError, match=r"was taken over by another process \(process 1 on elsewhere\) while"):
            check_for(lock, seconds=20)
    assert (tmp_path / LOCK).is_file()  # theirs


def test_of_two_that_find_a_dead_lock_one_gets_it(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(marker("elsewhere", lease_s=0.9))
    held, refused, most = [], [], []

    def take() -> None:
        try:
            with locked(tmp_path, lease_s=0.9):
                held.append(1)
                most.append(len(held))
                time.sleep(1)
                held.pop()
        except RunFolderError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(most) == 1
    assert len(most) + len(refused) == 4


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"can't be written \(Not a directory\)"), locked(tmp_path / "file" / "run"):
        pass
