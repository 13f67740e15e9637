"""Trajectories are generated once, kept, and paired in the order of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from addiffusion.embedded.making.part import TrainingBudget, TrainingContext
from addiffusion.embedded.making.trajectories import Trajectories, paired_frames, trajectories_of
from addiffusion.seeds import generator


def context_of(folder: Path) -> TrainingContext:
    return TrainingContext(
        out=folder / "out",
        work=folder / "work",
        seed=1,
        device=torch.device("cpu"),
        budget=TrainingBudget(max_batch=2, max_pool=2),
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trajectories")


def test_generations_converge(work: Path) -> None:
    made = trajectories_of(context_of(work))
    assert made.images.shape == (2, 10, 64, 64, 3)
    assert len(made.captions) == 2
    distance = np.abs(made.images.astype(float) - made.images[:, -1:]).mean(axis=(0, 2, 3, 4))
    assert distance[0] > distance[4] > distance[8] > distance[9] == 0


def test_they_are_generated_once(work: Path) -> None:
    first = trajectories_of(context_of(work))
    files = list((work / "work" / "trajectories").iterdir())
    stamps = [file.stat().st_mtime_ns for file in files]
    again = trajectories_of(context_of(work))
    assert [file.stat().st_mtime_ns for file in files] == stamps
    np.testing.assert_array_equal(first.images, again.images)


def test_pairs_are_early_then_late() -> None:
    moments = np.arange(5, dtype=np.uint8)
    images = np.broadcast_to(moments[None, :, None, None, None], (3, 5, 2, 2, 3)).copy()
    pairs = paired_frames(Trajectories(images=images, captions=("a", "b", "c")), generator("pairs"), 200)
    early, late = pairs.images[:200, 0, 0, 0].astype(int), pairs.images[200:, 0, 0, 0].astype(int)
    assert (late > early).all()
    np.testing.assert_allclose(pairs.progress.numpy(), (late - early) / 4)
    assert set(late - early) == {1, 2, 3, 4}
    assert set(pairs.captions) == {"a", "b", "c"}
