"""What a run leaves on disk."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from addiffusion.config import Config, RunSection
from addiffusion.errors import CheckpointError, OutputError, RunFolderError
from addiffusion.files import write_text
from launch.training.preflight import prepare
from launch.training.run_folder import RunFolder, going_on, located, planned_path
from tests.disks import names, small_disk


def masked_crc32c(content: bytes) -> int:
    """As TensorFlow's record files mask it."""
    value = crc32c(content)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def config_at(path: Path | None) -> Config:
    return Config(run=RunSection(dir=path))


def test_the_default_name_is_the_utc_time() -> None:
    path = planned_path(config_at(None), now=datetime(2026, 11, 5, 7, 8, 9, tzinfo=UTC))
    assert path == Path("runs/20261105-070809")


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"exists already.*resume="):
        planned_path(config_at(tmp_path))


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="no folder you may write to"):
        planned_path(config_at(tmp_path / "file" / "run"))


def test_create_writes_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    config = config_at(path)
    RunFolder.create(path, config)
    _, read = RunFolder.open(path)
    assert read == config
    with pytest.raises(RunFolderError, match="can't be made: File exists"):
        RunFolder.create(path, config)


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no run folder"):
        RunFolder.open(tmp_path)


def test_metrics_grow_line_by_line_and_rewind(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", Config()) as folder:
        for iteration in (1, 2, 3):
            folder.append({"iteration": iteration, "nfe": 10.0 * iteration, "kl": float("nan")})
        assert folder.metrics()[1] == {"iteration": 2, "nfe": 20.0, "kl": None}  # JSON has no NaN
        folder.rewind(2)
        assert [row["iteration"] for row in folder.metrics()] == [1, 2]
        folder.append({"iteration": 3, "nfe": 1.0})
        assert len(folder.metrics()) == 3
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def events(folder: Path) -> list[Event]:
    """Every event of the folder's files, oldest file first, as TensorBoard frames them."""
    found: list[Event] = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("Q", content[:8])
            assert struct.unpack("I", content[8:12]) == (masked_crc32c(content[:8]),)
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", Config()) as folder:
        for iteration in (1, 2, 3):
            folder.append({"iteration": iteration, "nfe": 10.0 * iteration})
    resumed = RunFolder(folder.path)
    with resumed:
        resumed.rewind(1)
        resumed.append({"iteration": 2, "nfe": 5.0})
    assert len(list((folder.path / "tensorboard").iterdir())) == 2  # within a second of the first
    first, last = events(folder.path)[:4], events(folder.path)[4:]
    assert [(one.step, one.summary.value[0].simple_value) for one in first[1:]] == [(1, 10), (2, 20), (3, 30)]
    assert [one.file_version for one in (first[0], last[0])] == ["brain.Event:2"] * 2
    assert (last[1].step, last[1].session_log.status) == (2, SessionLog.START)  # TensorBoard drops steps from there on
    assert [(one.step, one.summary.value[0].tag) for one in last[2:]] == [(2, "nfe/nfe")]


def append_all(folder: RunFolder, rows: Sequence[Mapping[str, float]]) -> None:
    for row in rows:
        folder.append(row)


@pytest.mark.timeout(60)
def test_a_full_disk_ends_with_a_sentence_and_never_with_half_a_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 28) as disk, RunFolder.begun(disk / "run", Config()) as folder:
        row = {"iteration": 1, **{f"score_{number}": float(number) for number in range(60)}}
        with pytest.raises(OutputError, match=r"(metrics.jsonl|tensorboard) can't be written \(No space left on dev"):
            append_all(folder, [row | {"iteration": iteration} for iteration in range(1, 100)])
        lines = (folder.path / "metrics.jsonl").read_text().splitlines(keepends=True)
        assert [json.loads(line)["iteration"] for line in lines] == list(range(1, len(lines) + 1))
        assert all(line.endswith("\n") for line in lines)


def test_a_disk_without_room_for_the_configuration_keeps_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        refused = pytest.raises(OutputError, match=r"config.yaml can't be written \(No space left on device\)")
        with refused, RunFolder.begun(disk / "run", Config()):
            pass
        assert names(disk) == []


def test_one_process_at_a_time_writes_a_run(tmp_path: Path) -> None:
    with RunFolder.begun(tmp_path / "run", Config()) as folder:
        folder.append({"iteration": 1, "nfe": 1.0})
        refused = pytest.raises(RunFolderError, match=rf"run is in use by process {os.getpid()} on ")
        with refused, RunFolder.resumed(folder.path):
            pass
    with RunFolder.resumed(folder.path):
        pass
    assert not (folder.path / ".lock").exists()


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", Config()) as folder:
        folder.append({"iteration": 1, "nfe": 10.0})
        with (folder.path / "metrics.jsonl").open("a") as file:
            file.write('{"iteration": 2, "nf')
        assert len(folder.metrics()) == 1
        folder.rewind(1)
        folder.append({"iteration": 2, "nfe": 9.0})
        assert [row["nfe"] for row in folder.metrics()] == [10.0, 9.0]


def test_the_result_is_readable_json(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", Config())
    folder.write_result({"mean_nfe": 12.5, "scene": None})
    assert json.loads((folder.path / "result.json").read_text()) == {"mean_nfe": 12.5, "scene": None}


def test_write_text_leaves_no_partial_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "two")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "two")]


def resuming(path: Path, **sections: dict[str, object]) -> Config:
    return Config.model_validate({"run": {"dir": path / "run", "if_exists": "resume"}, **sections})


def test_one_command_starts_and_goes_on(tmp_path: Path) -> None:
    config = resuming(tmp_path)
    assert going_on(config) is None
    folder = RunFolder.create(planned_path(config), config)
    assert going_on(config) == folder.path  # killed before its first checkpoint
    moved = resuming(tmp_path, rollout={"slots": 3}, cluster={"mode": "serial"})
    assert going_on(moved) == folder.path
    (folder.checkpoints / "iteration-000001").mkdir(parents=True)
    assert going_on(config) == folder.path


def test_a_run_of_another_configuration_is_put_aside_unless_it_has_drawn_something(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", resuming(tmp_path))
    other = resuming(tmp_path, ppo={"lr": 1e-5})
    assert going_on(other) is None
    assert [path.name.startswith("run.") for path in tmp_path.iterdir()] == [True]

    folder = RunFolder.create(tmp_path / "run", resuming(tmp_path))
    (folder.path / "references").mkdir()
    with pytest.raises(RunFolderError, match=r"full-length images of a run of another configuration: .*resume="):
        going_on(other)
    with pytest.raises(RunFolderError, match="full-length images of a run of another configuration"):
        going_on(resuming(tmp_path, backbone={"lora": "style.safetensors"}))
    assert going_on(resuming(tmp_path)) == folder.path


@pytest.mark.parametrize("how", ["resume={run}", "run.if_exists=resume"])
def test_a_run_without_a_checkpoint_is_gone_on_with(tmp_path: Path, how: str) -> None:
    run, small = tmp_path / "run", ["cluster.mode=serial", "prompts.train_count=2", "evaluation.prompt_count=1"]
    begun = prepare([], [*small, f"run.dir={run}"])
    assert not begun.begun
    RunFolder.create(run, begun.config)
    again = prepare([], [how.format(run=run)] if "{" in how else [*small, f"run.dir={run}", how])
    assert again.begun
    assert again.checkpoint is None
    assert again.path == run
    assert [prompt.text for prompt in again.train_prompts] == [prompt.text for prompt in begun.train_prompts]
    (run / "result.json").write_text("{}")  # a finished run that has lost its checkpoints is not begun again
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        prepare([], [f"resume={run}"])


def test_a_submitted_job_keeps_its_runs_outside_of_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert located(Path("runs/a")) == Path("runs/a")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert located(Path("runs/a")) == Path.home() / "runs/a"
    assert located(Path("/data/a")) == Path("/data/a")
