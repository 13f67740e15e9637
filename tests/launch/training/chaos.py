"""A training whose processes are killed, whose disk is filled and which is interrupted, and that is begun again each
time.

One seed decides what happens, in which order and when; how far the training is by then depends on the machine, and must
not matter.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.head import BIN, ROOT
from tests.cluster.waiting import wait_for

START_S, END_S, FINISH_S = 400.0, 240.0, 900.0
"""Longest waits for the roles to stand, for a driver to end that was told to, and for one that was left in peace."""
PAUSE_S = (0.5, 5.0)
"""Between two blows."""
INTERRUPTED = 130
KINDS = ("worker", "reward", "driver", "ctrl-c", "disk")
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Daemons of Ray's that outlive a driver that was killed, until they notice."""
ENDING = ("driver", "ctrl-c", "disk")
"""Blows that end the driver; whatever it was doing, the same command goes on."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from another that got its number later."""

    pid: int
    started: str
    title: str = field(compare=False)

    def kill(self) -> None:
        """SIGKILL, if it is still the same."""
        with suppress(ProcessLookupError):
            if self in processes(lambda pid: pid == self.pid):
                os.kill(self.pid, signal.SIGKILL)


def processes(wanted: Callable[[int], bool]) -> list[Process]:
    """Living processes whose number is ``wanted``."""
    found: list[Process] = []
    for entry in _numbers():
        with suppress(OSError):
            if wanted(int(entry)):
                found.append(Process(int(entry), _fields(entry)[19], _title(entry)))
    return found


def descendants(pid: int) -> list[Process]:
    """Children of a process, and theirs."""
    parents: dict[int, int] = {}
    for entry in _numbers():
        with suppress(OSError):
            parents[int(entry)] = int(_fields(entry)[1])

    def below(child: int) -> bool:
        while child in parents:
            child = parents[child]
            if child == pid:
                return True
        return False

    return processes(below)


def _numbers() -> Iterator[str]:
    return filter(str.isdigit, (entry.name for entry in Path("/proc").iterdir()))


def _fields(entry: str) -> list[str]:
    """State, parent and so on of /proc/PID/stat: what follows the name, which may hold anything."""
    return Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()


def _title(entry: str) -> str:
    return Path(f"/proc/{entry}/cmdline").read_text(errors="replace").replace("\0", " ").strip()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, which only root may mount; elsewhere an ordinary folder."""
    folder.mkdir()
    if os.geteuid() != 0:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


@dataclass(kw_only=True)
class Chaos:
    """One run folder, and one driver after another that works on it."""

    command: Sequence[str]
    """What starts the run and goes on with it."""
    run: Path
    disk: Path
    """File system of ``run``."""
    seed: int
    worker_counts: Sequence[int] = (1, 2, 3)
    log: Callable[[str], None] = print
    blows: list[str] = field(default_factory=list[str])
    """What has happened, by name."""
    consoles: list[str] = field(default_factory=list[str])
    """What each driver has said."""
    left_behind: list[Process] = field(default_factory=list[Process])
    """Processes that outlived their driver by a minute, and were ended."""

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._deck: list[str] = []

    def until(self, seconds: float) -> int:
        """Strike for ``seconds`` and until every kind of blow has come, then leave the run in peace to its end.

        Returns:
            How many drivers it took.
        """
        end = time.monotonic() + seconds
        for number in range(1, 1000):
            if self._drive(end):
                return number
        raise AssertionError("a thousand drivers did not finish the run")

    def _drive(self, end: float) -> bool:
        """One driver, to its end; whether it has finished the run."""
        console = self.run.with_name(f"console-{len(self.consoles):03d}.log")
        workers = self._draw.choice(self.worker_counts)
        with console.open("w") as out:
            driver = subprocess.Popen(
                [str(BIN / "addiffusion"), *self.command, f"rollout.workers={workers}"],
                cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"}, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.log(f"driver {driver.pid} with {workers} workers")
        family: set[Process] = set()
        try:
            allowed = self._strike(driver, console, family, end)
            code = driver.wait(timeout=END_S)
        finally:
            driver.kill()
            driver.wait(timeout=30)
            self._bury(family)
            self.consoles.append(console.read_text())
        said = self.consoles[-1]
        self.log(f"driver {driver.pid} ended with {code}: {said.strip().splitlines()[-1:]}")
        assert code in {0, *allowed}, f"exit code {code} after {self.blows[-3:]}:\n{said[-4000:]}"
        return code == 0 and (self.run / "result.json").is_file()

    def _strike(self, driver: subprocess.Popen[bytes], console: Path, family: set[Process], end: float) -> set[int]:
        """Blow after blow; returns the exit codes that the last of them allows."""
        standing = wait_for(
            "the roles",
            lambda: driver.poll() is not None or "run folder" in console.read_text(),
            timeout_s=START_S,
            give_up=console.read_text,
        )
        assert standing
        while (time.monotonic() < end or not self._complete()) and driver.poll() is None:
            family.update(descendants(driver.pid))
            time.sleep(self._draw.uniform(*PAUSE_S))
            family.update(descendants(driver.pid))
            if driver.poll() is None and (blow := self._next()) is not None and self._deal(blow, driver):
                self.blows.append(blow)
                self.log(blow)
                if blow in ENDING:
                    return {"driver": {-signal.SIGKILL}, "ctrl-c": {INTERRUPTED}, "disk": {1, 2}}[blow]
        limit = time.monotonic() + FINISH_S
        while driver.poll() is None and time.monotonic() < limit:
            family.update(descendants(driver.pid))
            time.sleep(1)
        return set()

    def possible(self) -> set[str]:
        """Kinds of blows there are on this machine: without a disk of its own, none is filled."""
        return set(KINDS) - (set() if os.path.ismount(self.disk) else {"disk"})

    def _complete(self) -> bool:
        return self.possible() <= set(self.blows)

    def _next(self) -> str:
        """Every kind comes once before any comes again; workers are lost more often."""
        if not self._deck:
            self._deck = [*KINDS, "worker", "worker"]
            self._draw.shuffle(self._deck)
        return self._deck.pop()

    def _deal(self, blow: str, driver: subprocess.Popen[bytes]) -> bool:
        """Whether there was somebody to strike."""
        match blow:
            case "driver":
                driver.kill()
            case "ctrl-c":
                driver.send_signal(signal.SIGINT)
            case "disk":
                return self._fill(driver)
            case _:
                name = {"worker": "ray::DiffusionRunner", "reward": "ray::RewardActor"}[blow]
                there = sorted(
                    (one for one in descendants(driver.pid) if one.title.startswith(name)), key=lambda p: p.pid
                )
                if not there:
                    return False
                self._draw.choice(there).kill()
        return True

    def _fill(self, driver: subprocess.Popen[bytes]) -> bool:
        """Leave no room on the disk until the driver has ended of it."""
        if not os.path.ismount(self.disk):
            return False
        filler = self.disk / "filler"
        try:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            wait_for("the end by a full disk", lambda: driver.poll() is not None, timeout_s=END_S)
        finally:
            filler.unlink()
        return True

    def _bury(self, family: set[Process]) -> None:
        """Ray's processes end with their driver; those that have not after a while are ended, and counted."""
        with suppress(TimeoutError):
            wait_for("the end of Ray", lambda: not family & set(processes(lambda pid: True)), timeout_s=60)
        for left in family & set(processes(lambda pid: True)):
            self.log(f"left behind: {left}")
            left.kill()
            if not left.title.startswith(RAYS_OWN):
                self.left_behind.append(left)


def complaints(console: str) -> list[str]:
    """Lines of a console that are no product's: tracebacks, blocks of Ray's and RLlib's with paths of files."""
    pattern = re.compile(r"Traceback|^\s+File \"|\bERROR\b|\.py:\d+|\(raylet\)|actor_id:|--- Logging error")
    return [line for line in console.splitlines() if pattern.search(line)]
