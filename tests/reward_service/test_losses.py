"""Processes that lose their device one after the other come to an end; one that scores begins anew."""

from __future__ import annotations

import asyncio
from multiprocessing import get_context
from pathlib import Path

import pytest

from addiffusion.config import ScorersSection
from addiffusion.errors import RolloutError
from addiffusion.poisoned import EXIT_CODE
from reward_service.losses import MAX_LOSSES, Losses
from reward_service.service import RewardService
from tests.reward_service.toy_scoring import LostScoring, ToyScoring, make_request

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
    losses = Losses("a", tmp_path / "missing")
    losses.add(REASON)
    assert (losses.count, losses.reason) == (1, REASON)


SECTION = ScorersSection(batch_images=8, timeout_s=60.0)


def serve(scoring: ToyScoring, folder: Path, *, prompts: bool = False) -> None:
    """One process of a replica: it answers one call."""

    async def main() -> None:
        service = RewardService(scoring, SECTION, losses=Losses("a", folder))
        await (service.embed_text(("a red circle",)) if prompts else service.score(make_request(0, 3)))
        await service.close()

    asyncio.run(main())


@pytest.mark.parametrize("prompts", [False, True])
def test_a_process_that_lost_its_device_ends_with_its_reason(
    prompts: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether it is noticed on images or on prompts; the count is what the next process finds."""
    arguments = (LostScoring(SECTION), tmp_path)
    process = get_context("fork").Process(target=serve, args=arguments, kwargs={"prompts": prompts})
    process.start()
    process.join(60)
    assert process.exitcode == EXIT_CODE
    assert capfd.readouterr().err.strip().endswith(f"its device is lost to it ({REASON}).")
    assert Losses("a", tmp_path).count == 1


def test_a_process_that_scores_clears_the_count(tmp_path: Path) -> None:
    """Only losses in a row end a run; embedded prompts prove nothing about images."""
    Losses("a", tmp_path).add(REASON)
    serve(ToyScoring(SECTION), tmp_path, prompts=True)
    assert Losses("a", tmp_path).count == 1
    serve(ToyScoring(SECTION), tmp_path)
    assert Losses("a", tmp_path).count == 0
