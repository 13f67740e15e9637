"""Processes that lose their device one after the other come to an end; one that scores begins anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from addiffusion.errors import RolloutError
from addiffusion.poisoned import EXIT_CODE
from reward_service.losses import MAX_LOSSES, Losses

REASON = "CUDA error: device-side assert triggered"


def test_losses_in_a_row_outlive_their_processes(tmp_path: Path) -> None:
    """Each process reads what the one before it has left."""
    for count in range(MAX_LOSSES):
        losses = Losses("a", tmp_path)
        assert losses.count == count
        losses.check("run")
        losses.add(REASON)
    Losses("b", tmp_path).check("run")
    with pytest.raises(RolloutError, match=rf"service run lost its device {MAX_LOSSES} times in a row .*{REASON}"):
        Losses("a", tmp_path).check("run")


def test_a_pass_that_scored_clears_the_count(tmp_path: Path) -> None:
    """And leaves no file behind."""
    Losses("a", tmp_path).add(REASON)
    losses = Losses("a", tmp_path)
    losses.clear()
    assert Losses("a", tmp_path).count == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"count": "x", "reason": ""}', "\x00"])
def test_a_damaged_count_is_none(tmp_path: Path, content: str) -> None:
    """A full disk may have cut it."""
    Losses("a", tmp_path).add(REASON)
    next(tmp_path.iterdir()).write_text(content)
    assert Losses("a", tmp_path).count == 0


def test_a_count_that_cant_be_written_keeps_no_process_from_ending(tmp_path: Path) -> None:
    Losses("a", tmp_path / "missing").add(REASON)


PROGRAM = """
import asyncio, sys
from pathlib import Path
from addiffusion.config import ScorersSection
from reward_service.losses import Losses
from reward_service.service import RewardService
from tests.reward_service.toy_scoring import LostScoring, ToyScoring, make_request

section = ScorersSection(batch_images=8, timeout_s=30.0)
losses = Losses("a", Path(sys.argv[1]))
losses.check("run")
scoring = (ToyScoring if sys.argv[2] == "well" else LostScoring)(section)
async def main():
    service = RewardService(scoring, section, losses=losses)
    if sys.argv[2] == "text":
        await service.embed_text(("a red circle",))
    await service.score(make_request(0, 3))
    await service.close()
asyncio.run(main())
"""


def test_a_real_process_ends_with_its_reason_and_one_that_scores_clears_it(tmp_path: Path) -> None:
    """Exit code and last words are those of a lost device; the count is what the next process finds."""

    def run(kind: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), kind]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    for kind in ("images", "text"):
        lost = run(kind)
        assert lost.returncode == EXIT_CODE, lost.stderr
        assert lost.stderr.strip().endswith(f"its device is lost to it ({REASON}).")
    assert Losses("a", tmp_path).count == 2
    assert run("well").returncode == 0
    assert Losses("a", tmp_path).count == 0


def test_a_disk_that_takes_no_count_keeps_no_process_from_ending(tmp_path: Path) -> None:
    """The folder is gone: the loss counts for this process, and nothing is raised."""
    losses = Losses("a", tmp_path / "gone")
    losses.add(REASON)
    assert (losses.count, losses.reason) == (1, REASON)
