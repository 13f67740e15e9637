"""Training of the scorers at toy size: objectives point the right way, and a killed run ends in the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from addiffusion.embedded.making.aesthetic_training import AestheticPart
from addiffusion.embedded.making.clip_training import ClipPart
from addiffusion.embedded.making.dino_training import DinoPart
from addiffusion.embedded.making.part import Part, Progress, TrainingBudget, TrainingContext
from addiffusion.embedded.making.preference_training import PreferencePart, evaluate_preference, standardise
from addiffusion.embedded.models.preference import PreferenceConfig, PreferenceModel
from addiffusion.embedded.models.tokenizer import build_tokenizer
from addiffusion.embedded.world.captions import vocabulary
from addiffusion.errors import WeightsError

PARTS: tuple[Part, ...] = (ClipPart(), DinoPart(), AestheticPart(), PreferencePart())


class KilledError(Exception):
    """Stands for the death of the process."""


def context_of(folder: Path, **changes: object) -> TrainingContext:
    context = TrainingContext(
        out=folder / "out",
        work=folder / "work",
        seed=4,
        device=torch.device("cpu"),
        budget=TrainingBudget(max_steps=4, max_batch=6, max_pool=4),
        checkpoint_every=2,
        log_every=1,
    )
    return replace(context, **changes)  # pyright: ignore[reportArgumentType]


def die_at_three(progress: Progress) -> None:
    if progress.step == 3:
        raise KilledError


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    for part in PARTS:
        part.train(context_of(folder))
    return folder


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_killed_part_ends_in_the_same_files(part: Part, straight: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clip").symlink_to(straight / "out" / "clip")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "trajectories").symlink_to(straight / "work" / "trajectories")
    if part.name == "clip":
        (tmp_path / "out" / "clip").unlink()
    with pytest.raises(KilledError):
        part.train(context_of(tmp_path, on_progress=die_at_three))
    part.train(context_of(tmp_path))
    files = sorted((straight / "out" / part.name).iterdir())
    assert files
    for file in files:
        assert (tmp_path / "out" / part.name / file.name).read_bytes() == file.read_bytes(), file.name


def test_aesthetic_without_a_clip_says_what_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="`clip` first"):
        AestheticPart().train(context_of(tmp_path))


@pytest.mark.parametrize("part", [ClipPart(), PreferencePart()], ids=lambda part: part.name)
def test_losses_fall(part: Part, straight: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "trajectories").symlink_to(straight / "work" / "trajectories")
    seen: list[float] = []
    budget = TrainingBudget(max_steps=24, max_batch=8, max_pool=4)
    part.train(context_of(tmp_path, budget=budget, on_progress=lambda progress: seen.append(progress.metrics["loss"])))
    assert sum(seen[-6:]) < sum(seen[:6])


def test_a_preference_model_is_standardised() -> None:
    tokenizer = build_tokenizer(vocabulary())
    model = PreferenceModel(PreferenceConfig(vocab_size=len(tokenizer))).eval()
    standardise(model, tokenizer, seed=0, count=40)
    assert model.config.std > 0
    figures = evaluate_preference(model, tokenizer, seed=0, count=8)
    assert set(figures) == {"contradiction", "corrupted_0.1", "corrupted_0.25", "corrupted_0.5", "corrupted_1.0"}
    assert all(0 <= figure <= 1 for figure in figures.values())
