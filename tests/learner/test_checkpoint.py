from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from addiffusion.config import Config
from addiffusion.errors import CheckpointError
from learner.checkpoint import (
    Checkpoint,
    config_digest,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    write_checkpoint,
)
from learner.state import LearnerState
from learner.tickets import LedgerState


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
    folder = tmp_path / "one"
    (tmp_path / ".one.partial").mkdir()
    (tmp_path / ".one.partial" / "left over from a crash").touch()
    write_checkpoint(folder, make_checkpoint(1))
    write_checkpoint(folder, make_checkpoint(2))
    assert load_checkpoint(folder).iteration == 2
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert len(list(folder.iterdir())) == 4


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


def test_a_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", make_checkpoint(1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(CheckpointError, match=r"two can't be written \(.+\): make room there"):
            write_checkpoint(tmp_path / "two", make_checkpoint(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
