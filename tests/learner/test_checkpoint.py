from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from addiffusion.checkpoint_files import latest_checkpoint, list_checkpoints
from addiffusion.config import Config
from addiffusion.errors import CheckpointError
from learner.checkpoint import (
    Checkpoint,
    config_digest,
    is_of,
    load_checkpoint,
    save_checkpoint,
    write_checkpoint,
)
from learner.state import LearnerState
from learner.tickets import LedgerState
from tests.disks import names, small_disk


def make_checkpoint(iteration: int = 3) -> Checkpoint:
    optimizer = torch.optim.Adam([weight := torch.nn.Parameter(torch.ones(2))])
    weight.grad = torch.full((2,), 0.5)
    optimizer.step()
    return Checkpoint(
        learner=LearnerState(
            policy={"layers.0.weight": torch.arange(4.0)},
            value={"layers.0.weight": torch.arange(3.0)},
            optimizer=optimizer.state_dict(),
        ),
        ledger=LedgerState(iteration=iteration, trained_count=8 * iteration, failed_count=2, reissued_count=5),
        config_digest="abc",
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = make_checkpoint()
    folder = save_checkpoint(tmp_path, written, keep=2)
    assert folder == tmp_path / "checkpoints" / "iteration-000003"
    read = load_checkpoint(folder)
    assert (read.ledger, read.config_digest, read.iteration) == (written.ledger, "abc", 3)
    for part in ("policy", "value"):
        assert torch.equal(*(getattr(side.learner, part)["layers.0.weight"] for side in (read, written)))
    moments = read.learner.optimizer["state"][0]
    assert torch.equal(moments["exp_avg"], written.learner.optimizer["state"][0]["exp_avg"])
    assert read.learner.optimizer["param_groups"] == written.learner.optimizer["param_groups"]


def test_writing_leaves_nothing_else_and_replaces_what_was_there(tmp_path: Path) -> None:
    home = tmp_path / "checkpoints"
    (home / ".iteration-000001.partial").mkdir(parents=True)
    (home / ".iteration-000001.partial" / "left over from a crash").touch()
    folder = save_checkpoint(tmp_path, replace(make_checkpoint(1), config_digest="old"), keep=1)
    assert save_checkpoint(tmp_path, make_checkpoint(1), keep=1) == folder
    assert load_checkpoint(folder).config_digest == "abc"
    assert [path.name for path in home.iterdir()] == ["iteration-000001"]
    assert len(list(folder.iterdir())) == 4


def test_an_equal_checkpoint_is_not_written_again(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    before = {path.name: path.stat().st_ino for path in (folder, *folder.iterdir())}
    save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    assert {path.name: path.stat().st_ino for path in (folder, *folder.iterdir())} == before
    cut(folder / "policy.safetensors")  # but a damaged one is
    save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    assert load_checkpoint(folder).iteration == 1


@pytest.mark.parametrize("step", range(1, 9))
def test_whenever_it_is_killed_a_run_goes_on_from_a_whole_checkpoint(tmp_path: Path, step: int) -> None:
    """A kill (nothing more is done, as after a second Ctrl-C) before each change of the folder in turn."""
    save_checkpoint(tmp_path, make_checkpoint(1), keep=0)
    save_checkpoint(tmp_path, make_checkpoint(2), keep=0)
    left = [step]

    def killed(change: Callable[..., object]) -> Callable[..., object]:
        def maybe(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] <= 0:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return maybe

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "mkdir"):
            patch.setattr(Path, name, killed(getattr(Path, name)))
        patch.setattr("shutil.rmtree", killed(shutil.rmtree))
        patch.setattr(os, "rename", killed(os.rename))
        with suppress(KeyboardInterrupt):
            save_checkpoint(tmp_path, replace(make_checkpoint(2), config_digest="new"), keep=0)
            save_checkpoint(tmp_path, make_checkpoint(3), keep=0)
    for folder in list_checkpoints(tmp_path):
        load_checkpoint(folder)
    assert load_checkpoint(latest_checkpoint(tmp_path)).iteration in {2, 3}
    save_checkpoint(tmp_path, make_checkpoint(3), keep=0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["iteration-000003"]


def test_the_newest_and_those_to_keep_stay(tmp_path: Path) -> None:
    for iteration in (2, 9, 10, 100):
        save_checkpoint(tmp_path, make_checkpoint(iteration), keep=1)
    (tmp_path / "checkpoints" / ".iteration-000101.partial").mkdir()
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["iteration-000010", "iteration-000100"]
    assert latest_checkpoint(tmp_path).name == "iteration-000100"


def test_the_best_stays_however_old_it_is_and_has_a_link(tmp_path: Path) -> None:
    for iteration, score in ((1, 0.1), (2, 0.5), (3, None), (4, 0.2), (5, 0.5), (6, 0.4), (7, 0.3)):
        save_checkpoint(tmp_path, replace(make_checkpoint(iteration), score=score), keep=1)
        if iteration == 4:
            assert (tmp_path / "checkpoints" / "best").readlink() == Path("iteration-000002")
    assert [folder.name[-1] for folder in list_checkpoints(tmp_path)] == ["5", "6", "7"]
    assert load_checkpoint(tmp_path / "checkpoints" / "best").score == 0.5
    assert load_checkpoint(latest_checkpoint(tmp_path)).iteration == 7


def test_where_links_cannot_be_best_is_a_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "symlink", refuse)
    for iteration, score in ((1, 0.5), (2, 0.1)):
        save_checkpoint(tmp_path, replace(make_checkpoint(iteration), score=score), keep=1)
    best = tmp_path / "checkpoints" / "best"
    assert (best.is_symlink(), best.read_text()) == (False, "iteration-000001\n")
    assert load_checkpoint(best).iteration == 1
    save_checkpoint(tmp_path, replace(make_checkpoint(3), score=0.9), keep=1)
    assert load_checkpoint(best).iteration == 3
    monkeypatch.undo()
    save_checkpoint(tmp_path, replace(make_checkpoint(4), score=1.0), keep=1)
    assert best.readlink() == Path("iteration-000004")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_folders_that_cannot_be_synchronised_are_left_at_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    synchronise = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    assert load_checkpoint(save_checkpoint(tmp_path, make_checkpoint(), keep=1)).iteration == 3


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        latest_checkpoint(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def edit_state(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: cut(folder / "policy.safetensors"), r"policy\.safetensors can't be used: its checksum"),
        (lambda folder: cut(folder / "optimizer.pt"), r"optimizer\.pt can't be used: its checksum"),
        (lambda folder: (folder / "value.safetensors").unlink(), r"value\.safetensors can't be used: it is missing"),
        (lambda folder: (folder / "state.json").unlink(), r"is not a checkpoint: it has no state\.json"),
        (lambda folder: cut(folder / "state.json"), r"state\.json can't be used: it is not JSON"),
        (lambda folder: edit_state(folder / "state.json", schema_version=99), "schema_version 1"),
        (lambda folder: edit_state(folder / "state.json", ledger={"surprise": 1}), "a field is missing or unknown"),
        (lambda folder: edit_state(folder / "state.json", sha256=[]), "a field is missing or unknown"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    folder = save_checkpoint(tmp_path, make_checkpoint(), keep=1)
    damage(folder)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(folder)


def test_the_digest_ignores_where_a_run_is_and_heeds_what_it_learns() -> None:
    base = Config()
    moved = base.model_copy(update={"cluster": base.cluster.model_copy(update={"mode": "serial"})})
    seeded = base.model_copy(update={"run": base.run.model_copy(update={"seed": 1})})
    faster = base.model_copy(update={"ppo": base.ppo.model_copy(update={"lr": 1.0e-3})})
    assert config_digest(base) == config_digest(moved)
    assert len({config_digest(config) for config in (base, seeded, faster)}) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora", "style.safetensors"),
        ("dtype", "bfloat16"),
        ("negative_prompt", "blurry"),
        ("image_size", 128),
        ("preview", "taesd"),
    ],
)
def test_a_checkpoint_belongs_to_the_model_that_it_learned_from(key: str, value: object) -> None:
    base = Config()
    other = base.model_copy(update={"backbone": base.backbone.model_copy(update={key: value})})
    checkpoint = replace(make_checkpoint(), config_digest=config_digest(base))
    assert is_of(checkpoint, base)
    assert not is_of(checkpoint, other)
    compiled = base.model_copy(update={"backbone": base.backbone.model_copy(update={"compile": "default"})})
    assert is_of(checkpoint, compiled)


def test_a_full_disk_is_one_sentence_with_true_advice(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        with pytest.raises(
            CheckpointError, match=r"000001 can't be written \(No space.+go on with resume=.+, which has no ch"
        ):
            save_checkpoint(disk, make_checkpoint(1), keep=1)
        assert names(disk) == ["checkpoints"]
    with small_disk(tmp_path / "larger", 24) as disk:
        save_checkpoint(disk, make_checkpoint(1), keep=1)
        with pytest.raises(CheckpointError, match=r"2 can't be written \(No space.+go on with iteration-000001"):
            save_checkpoint(disk, replace(make_checkpoint(2), config_digest="x" * 20_000), keep=1)
        assert [folder.name for folder in (disk / "checkpoints").iterdir()] == ["iteration-000001"]
        assert load_checkpoint(latest_checkpoint(disk)).iteration == 1


def test_a_file_size_limit_is_one_sentence_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", make_checkpoint(1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(CheckpointError, match=r"two can't be written \(.+\): make room there"):
            write_checkpoint(tmp_path / "two", make_checkpoint(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
