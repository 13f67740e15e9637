"""A run whose disk is full, on a tiny file system of its own, which only root may mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.head import BIN, ROOT
from tests.cluster.training import rows, train_command

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a tiny file system"),
    pytest.mark.timeout(600),
]
RUN_S = 240.0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True, timeout=30)
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=30)


def train(run: Path) -> subprocess.CompletedProcess[str]:
    command = train_command(str(run), 2, "cluster.mode=serial", "rollout.workers=1", "checkpoint.every=1")
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def test_a_full_disk_is_one_sentence_and_with_room_the_same_command_goes_on(tiny_disk: Path) -> None:
    run = tiny_disk / "run"
    failed = train(run)
    assert failed.returncode != 0
    (sentence,) = failed.stderr.splitlines()
    assert sentence.startswith(
        f"Error: The checkpoint {run}/checkpoints/iteration-000001 can't be written (No space left"
    )
    assert list((run / "checkpoints").iterdir()) == []

    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True, timeout=30)
    finished = train(run)
    assert finished.returncode == 0, finished.stderr
    assert [row["iteration"] for row in rows(run)] == [1, 2]
    assert (run / "result.json").is_file()
