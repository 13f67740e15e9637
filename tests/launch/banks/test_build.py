"""Building, killing, growing and reading banks through the roles of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from addiffusion.bank import open_bank
from addiffusion.bank.archive import shards
from addiffusion.config import Config
from addiffusion.embedded.world import Split
from addiffusion.errors import ArchiveError, OutputError, RolloutError, RunFolderError
from addiffusion.records import FailedEpisode, Ticket
from addiffusion.rollouts import Collected
from launch.banks.build import Built, build
from launch.banks.info import describe, tables
from launch.banks.orders import BankOrder
from launch.runtime.components import Components, Roles
from launch.runtime.folder_lock import locked
from learner.settings import drawn_setting
from tests.addiffusion.bank.toy_bank import RANGES, toy_bank_config
from tests.disks import leave_lock, names, small_disk
from tests.launch.conftest import Ended
from tests.launch.runtime.toy_components import toy_components

QUIET = Console(quiet=True)


def config_of(**sections: object) -> Config:
    return toy_bank_config(bank={"every": 2, "shard_size": 4}, cluster={"mode": "serial"}, **sections)


def made(
    folder: Path, *, split: Split = "train", count: int = 6, roles: Roles = toy_components, **sections: object
) -> Built:
    order = BankOrder(folder=folder, split=split, count=count)
    return build(order, config_of(**sections), console=QUIET, roles=roles)


def bits(folder: Path) -> list[bytes]:
    return [
        np.concatenate([one.phi.ravel(), one.end_scores.ravel()]).tobytes() for one in open_bank(folder).trajectories
    ]


@contextmanager
def interrupted_components(config: Config) -> Iterator[Components]:
    """Somebody presses Ctrl-C during the first shard."""
    with toy_components(config) as components:
        collect = components.rollouts.collect

        def collect_and_signal(tickets: list[Ticket]) -> Collected:
            os.kill(os.getpid(), signal.SIGINT)
            return collect(tickets)

        components.rollouts.collect = collect_and_signal  # type: ignore[method-assign]
        yield components


@contextmanager
def failing_components(config: Config) -> Iterator[Components]:
    with toy_components(config) as components:
        components.rollouts.collect = lambda tickets: Collected(  # type: ignore[method-assign]
            episodes=(), failed=tuple(FailedEpisode(ticket=ticket, reason="no luck.") for ticket in tickets)
        )
        yield components


def test_one_process_builds_a_bank(tmp_path: Path) -> None:
    made(tmp_path / "a", count=4)
    with locked(tmp_path / "a"), pytest.raises(RunFolderError, match=r"a is in use by process \d+ on "):
        made(tmp_path / "a")
    leave_lock(tmp_path / "b")  # killed before it had a plan
    assert made(tmp_path / "b", count=4).complete


def test_a_full_disk_keeps_the_shards_that_are_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 44) as disk:
        with pytest.raises(OutputError, match=r"shard-00000\d.parquet can't be written \(No space left on device\)"):
            made(disk / "a", count=40)
        assert not [name for name in names(disk) if "partial" in name or "lock" in name]
        whole = len(open_bank(disk / "a").trajectories)
        assert whole >= 4
    assert whole % 4 == 0


def test_an_interrupted_build_goes_on_and_a_whole_one_is_left_alone(tmp_path: Path) -> None:
    first = made(tmp_path / "a", roles=interrupted_components)
    assert (first.trajectory_count, first.complete) == (4, False)
    kept = shards(tmp_path / "a")[0].stat().st_mtime_ns
    second = made(tmp_path / "a")
    assert (second.new_count, second.complete) == (2, True)
    assert shards(tmp_path / "a")[0].stat().st_mtime_ns == kept
    made(tmp_path / "b")
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    assert made(tmp_path / "a").new_count == 0


def test_a_larger_count_grows_a_bank(tmp_path: Path) -> None:
    made(tmp_path)
    grown = made(tmp_path, count=9)
    assert grown.complete
    assert len(open_bank(tmp_path).trajectories) == 9


def test_another_configuration_or_folder_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "bank")
    sampler = {"num_steps": 9, "warmup_steps": 2, "finish_steps": 2}
    with pytest.raises(ArchiveError, match=r"sampler\.num_steps"):
        made(tmp_path / "bank", sampler=sampler)
    with pytest.raises(ArchiveError, match="train split"):
        made(tmp_path / "bank", split="test")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ArchiveError, match="holds something that is no trajectory bank"):
        made(tmp_path / "other")


def test_a_trajectory_without_luck_ends_the_build_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match=r"no luck\. What is finished"):
        made(tmp_path, roles=failing_components)


def test_each_image_has_the_setting_that_training_draws_for_it(tmp_path: Path) -> None:
    made(tmp_path, **RANGES)
    config = config_of(**RANGES)
    bank = open_bank(tmp_path, config)
    assert [one.setting for one in bank.trajectories] == [drawn_setting(config, one.seed) for one in bank.trajectories]
    info = describe(tmp_path, config)
    assert info.settings is not None
    few, many = info.settings["num_steps"]
    assert 5 <= few < many <= 12
    assert info.as_json()["settings"]["solver"] == ["ddim"]
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(tables(info)[0])
    assert f"of each image its own: {few} to {many} steps of ddim, guidance" in console.export_text()


def test_info_counts_by_tier_and_lets_an_oracle_stop(tmp_path: Path, ended: Ended) -> None:
    made(tmp_path)
    info = describe(tmp_path, config_of())
    assert sum(tier.count for tier in info.tiers) == 6
    assert ended["shards of the bank"] == (len(shards(tmp_path)), len(shards(tmp_path)))
    assert all(tier.oracle_nfe <= tier.full_nfe and tier.oracle_gain >= 0 for tier in info.tiers)
    assert info.as_json()["every"] == 2
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    for shown in tables(info):
        console.print(shown)
    assert "oracle NFE" in console.export_text()
