from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.actions import Action
from addiffusion.errors import ArchiveError
from addiffusion.files import sweep
from addiffusion.records import Episode, Prompt, Reference, Ticket
from addiffusion.setting import Setting
from rollout_workers.recorder import EpisodeRecorder, read_episodes, read_part


def _episode(ticket_id: int, decisions: int, *, with_reference: bool = False, forced: Action | None = None) -> Episode:
    rng = np.random.default_rng([ticket_id, decisions])

    def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.standard_normal(shape).astype(np.float32)

    return Episode(
        ticket=Ticket(
            ticket_id=ticket_id,
            prompt=Prompt(prompt_id=3, text='a "red" circle, größer', tier=2),
            seed=2**62 + ticket_id,
            action_seed=2**61,
            c_nfe=0.1 / 3,
            forced=forced,
            explore=ticket_id % 2 == 0,
            setting=Setting(num_steps=9, solver="euler", max_cost=7.5) if ticket_id % 2 else None,
            reference=Reference(scores=floats(3), dino_embedding=floats(5)) if with_reference else None,
        ),
        phi=floats(decisions, 9),
        actions=rng.integers(0, 3, decisions),
        log_prob=floats(decisions),
        logits=floats(decisions, 3),
        steps=np.arange(3, 3 + decisions),
        nfe_spent=rng.integers(0, 4, decisions),
        scores=floats(decisions + 1, 3),
        terms=floats(decisions, 4),
        final_dino=floats(5),
        image=rng.integers(0, 256, (6, 8, 3), dtype=np.uint8),
        nfe=decisions + 4,
        network_evals=2 * (decisions + 4),
        weight_version=7,
        seconds=0.125,
        cost=decisions + 1.5,
    )


def _assert_equal(left: object, right: object, name: str = "episode") -> None:
    if is_dataclass(left):
        for field in fields(left):
            _assert_equal(getattr(left, field.name), getattr(right, field.name), field.name)
    else:
        np.testing.assert_array_equal(left, right, err_msg=name, strict=isinstance(left, np.ndarray))  # pyright: ignore[reportArgumentType]
        assert type(left) is type(right), name


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5), with_reference=st.booleans())
@settings(deadline=None, max_examples=15)
def test_episodes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], with_reference: bool
) -> None:
    episodes = [_episode(index, length, with_reference=with_reference) for index, length in enumerate(lengths)]
    folder = tmp_path_factory.mktemp("episodes")
    EpisodeRecorder(folder, name="worker-0").append(episodes)
    back = list(read_episodes(folder))
    assert len(back) == len(episodes)
    for before, after in zip(episodes, back, strict=True):
        _assert_equal(before, after)


def test_forced_episodes_keep_their_action(tmp_path: Path) -> None:
    EpisodeRecorder(tmp_path, name="w").append([_episode(1, 0, forced=Action.CONTINUE)])
    (back,) = read_episodes(tmp_path)
    assert back.ticket.forced is Action.CONTINUE
    assert back.phi.shape == (0, 9)


def test_files_from_when_every_pass_cost_the_same_are_read(tmp_path: Path) -> None:
    path = EpisodeRecorder(tmp_path, name="w").append([_episode(2, 3)])
    assert path is not None
    table = pq.read_table(path).drop_columns(["cost", "setting"])
    pq.write_table(table.replace_schema_metadata({b"addiffusion.episodes": b"2"}), path)
    (back,) = read_part(path)
    assert (back.cost, back.ticket.setting) == (back.nfe, None)


def test_each_append_is_a_new_part_and_recorders_share_a_folder(tmp_path: Path) -> None:
    first, second = (EpisodeRecorder(tmp_path / "episodes", name=name) for name in ("worker-1", "worker-10"))
    paths = [first.append([_episode(0, 2)]), second.append([_episode(1, 1)]), first.append([_episode(2, 1)])]
    assert [path.name for path in paths if path] == [
        "worker-1-000000.parquet",
        "worker-10-000000.parquet",
        "worker-1-000001.parquet",
    ]
    again = EpisodeRecorder(tmp_path / "episodes", name="worker-1").append([_episode(3, 1)])
    assert again is not None
    assert again.name == "worker-1-000002.parquet"
    assert sorted(episode.ticket.ticket_id for episode in read_episodes(tmp_path / "episodes")) == [0, 1, 2, 3]


def test_rewinding_forgets_the_later_parts_of_this_recorder_only(tmp_path: Path) -> None:
    mine, other = (EpisodeRecorder(tmp_path, name=name) for name in ("train", "other"))
    for ticket_id in range(3):
        mine.append([_episode(ticket_id, 1)])
    other.append([_episode(9, 1)])
    mine.rewind(1)
    assert sorted(episode.ticket.ticket_id for episode in read_episodes(tmp_path)) == [0, 9]
    again = mine.append([_episode(5, 1)])
    assert again is not None
    assert again.name == "train-000001.parquet"


def test_nothing_to_write_writes_nothing(tmp_path: Path) -> None:
    assert EpisodeRecorder(tmp_path, name="w").append([]) is None
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_complete_or_absent(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, name="w")
    recorder.append([_episode(0, 2)])
    (tmp_path / ".0123456789abcdef.partial").write_bytes(b"PAR1 cut off")  # what a killed process leaves behind
    assert len(list(read_episodes(tmp_path))) == 1
    recorder.append([_episode(1, 2)])
    assert len(list(read_episodes(tmp_path))) == 2
    sweep(tmp_path)  # as whoever takes the folder's lock
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w-000000.parquet", "w-000001.parquet"]


def test_rows_are_one_per_decision_and_one_for_the_image(tmp_path: Path) -> None:
    path = EpisodeRecorder(tmp_path, name="w").append([_episode(0, 3), _episode(1, 0)])
    assert path is not None
    table = pq.read_table(path)
    assert table.column("row").to_pylist() == [0, 1, 2, 3, 0]
    assert table.column("action").null_count == 2
    assert table.column("image").null_count == 3


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "foreign.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(ArchiveError, match=r"foreign\.parquet can't be read"):
        read_part(path)


def test_a_parquet_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1, 2]}), path)
    with pytest.raises(ArchiveError, match=r"other\.parquet is not a file of recorded episodes") as caught:
        list(read_episodes(tmp_path))
    assert caught.value.facts["path"] == str(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = EpisodeRecorder(tmp_path, name="w").append([_episode(0, 1)])
    assert path is not None
    pq.write_table(pq.read_table(path).replace_schema_metadata({"addiffusion.episodes": "0"}), path)
    with pytest.raises(ArchiveError, match="not a file of recorded episodes of format version 3") as caught:
        read_part(path)
    assert caught.value.facts["version"] == "0"
