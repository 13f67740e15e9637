"""A command as a person types it, the CPU time it took, and the most memory each of its processes has taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LOOK_EVERY_S = 0.5
GIB = 2**30


@dataclass
class Command:
    """One command and what was seen of its processes."""

    words: Sequence[str]
    output: str = ""
    code: int | None = None
    seconds: float = 0.0
    peaks: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Name and bytes by process id."""
    cpu_s: dict[int, float] = field(default_factory=dict)
    """CPU seconds by process id: what other work on the machine does not change."""

    def table(self) -> str:
        """Command, seconds, and GB of its largest processes."""
        most = sorted(self.peaks.values(), key=lambda named: -named[1])[:4]
        parts = ", ".join(f"{name} {size / GIB:.1f} GB" for name, size in most if size > GIB / 2)
        return f"{' '.join(self.words)}: {self.seconds:.0f} s, {sum(self.cpu_s.values()):.0f} of CPU; {parts}"


def run(words: Sequence[str], *, folder: Path, timeout_s: float, while_running: Callable[[Command], bool]) -> Command:
    """Run `addiffusion` with these words in a folder; ``while_running`` is asked again and again until it says True."""
    command = Command(words=words)
    start = time.monotonic()
    log = folder / "output.txt"
    with log.open("wb") as file:
        process = psutil.Popen(
            [sys.executable, "-c", "from launch.cli.app import main; main()", *words],
            cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, command, ended), daemon=True)
    watch.start()
    done = False
    try:
        while process.poll() is None and time.monotonic() - start < timeout_s:
            done = done or while_running(command)
            time.sleep(LOOK_EVERY_S)
    finally:
        ended.set()
        watch.join(timeout=30)
        if process.poll() is None:
            end_tree(process)
    command.code, command.seconds = process.wait(timeout=60), time.monotonic() - start
    command.output = log.read_text(errors="replace")
    print(command.table(), flush=True)
    return command


def end_tree(process: psutil.Process) -> None:
    """End a process and all that it has started, at once."""
    for one in [process, *process.children(recursive=True)]:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue


def kill_one(command: Command, name: str) -> bool:
    """Kill the first process of the command whose name begins so, as the kernel does where memory is full."""
    for pid, (found, _) in list(command.peaks.items()):
        if found.startswith(name) and psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _watch(process: psutil.Process, command: Command, ended: threading.Event) -> None:
    while not ended.wait(LOOK_EVERY_S):
        try:
            for one in [process, *process.children(recursive=True)]:
                _note(one, command)
        except psutil.Error:
            continue


def _note(process: psutil.Process, command: Command) -> None:
    try:
        line, size, times = process.cmdline(), process.memory_info().rss, process.cpu_times()
    except psutil.Error:
        return
    name = line[0].partition(".")[0] if line and line[0].startswith("ray::") else "addiffusion"
    command.cpu_s[process.pid] = times.user + times.system
    known, before = command.peaks.get(process.pid, (name, 0))
    # Ray names a process after what it does at the moment, and not at once.
    command.peaks[process.pid] = (name if name.startswith("ray::") else known, max(before, size))
