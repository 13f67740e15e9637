from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from addiffusion.bank import open_bank
from addiffusion.bank.archive import shards
from addiffusion.bank.plan import PLAN_FILE
from addiffusion.errors import ArchiveError
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config, toy_trajectories

CONFIG = toy_bank_config()


@pytest.mark.parametrize("stride", [1, 3])
def test_trajectories_come_back_bitwise(tmp_path: Path, stride: int) -> None:
    bank = toy_bank(tmp_path, CONFIG, stride=stride)
    assert bank.complete
    for read, written in zip(bank.trajectories, toy_trajectories(CONFIG, stride=stride), strict=True):
        for part in fields(written):
            np.testing.assert_array_equal(getattr(read, part.name), getattr(written, part.name), err_msg=part.name)
            assert type(getattr(read, part.name)) is type(getattr(written, part.name))


def test_the_full_length_is_the_last_end(tmp_path: Path) -> None:
    for one in toy_bank(tmp_path, CONFIG, stride=3).trajectories:
        assert one.end_rows.tolist() == [0, 3, 5]
        assert one.end_nfe.tolist() == [5, 8, 8]
        np.testing.assert_array_equal(one.end_scores[-1], one.scores[-1])
        np.testing.assert_array_equal(one.reference.dino_embedding, one.end_dino[-1])
        assert [one.end_at(row) for row in range(6)] == [0, 1, 1, 1, 2, 2]


def test_a_trajectory_is_found_by_prompt_and_seed(tmp_path: Path) -> None:
    bank = toy_bank(tmp_path, CONFIG)
    assert bank.find("toy scene 1", 4) is bank.trajectories[4]
    assert bank.find("toy scene 1", 5) is None


def test_a_bank_of_another_finish_is_refused_by_name(tmp_path: Path) -> None:
    toy_bank(tmp_path, CONFIG)
    other = toy_bank_config(sampler={"num_steps": 8, "warmup_steps": 2, "finish_steps": 3})
    with pytest.raises(ArchiveError, match=r"sampler.finish_steps \(2 there, 3 here\)"):
        open_bank(tmp_path, other)
    assert open_bank(tmp_path).complete


def test_what_does_not_change_a_bank_does_not_refuse_it(tmp_path: Path) -> None:
    toy_bank(tmp_path, CONFIG)
    other = toy_bank_config(reward={"preset": "phase1", "c_nfe": 0.5}, ppo={"lr": 1.0})
    assert open_bank(tmp_path, other).complete


def test_no_bank_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no trajectory bank"):
        open_bank(tmp_path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    toy_bank(tmp_path, CONFIG)
    plan = tmp_path / PLAN_FILE
    plan.write_text(plan.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(ArchiveError, match="schema_version 7"):
        open_bank(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    toy_bank(tmp_path, CONFIG)
    first = shards(tmp_path)[0]
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:100])
    else:
        pq.write_table(pq.read_table(first).replace_schema_metadata(None), first)
    with pytest.raises(ArchiveError, match=first.name):
        open_bank(tmp_path)


def test_a_bank_without_shards_is_said_so(tmp_path: Path) -> None:
    toy_bank(tmp_path, CONFIG)
    for shard in shards(tmp_path):
        shard.unlink()
    with pytest.raises(ArchiveError, match="is empty"):
        open_bank(tmp_path)
