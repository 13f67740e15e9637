"""Building, killing, growing and reading banks through the roles of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from addiffusion.bank import open_bank
from addiffusion.bank.archive import shards
from addiffusion.config import Config
from addiffusion.errors import ArchiveError, OutputError, RolloutError, RunFolderError
from addiffusion.records import FailedEpisode, Ticket
from addiffusion.rollouts import Collected
from launch.banks.build import BankOrder, build
from launch.banks.info import describe, tables
from launch.runtime.components import Components
from launch.runtime.folder_lock import locked
from tests.addiffusion.bank.toy_bank import toy_bank_config
from tests.disks import leave_lock, names, small_disk
from tests.launch.runtime.toy_components import toy_components

QUIET = Console(quiet=True)


def order(folder: Path, *, count: int = 6, **sections: object) -> BankOrder:
    config = toy_bank_config(bank={"every": 2, "shard_size": 4}, cluster={"mode": "serial"}, **sections)
    return BankOrder(folder=folder, config=config, split="train", count=count)


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
    build(order(tmp_path / "a", count=4), console=QUIET, roles=toy_components)
    with locked(tmp_path / "a"), pytest.raises(RunFolderError, match=r"a is in use by process \d+ on "):
        build(order(tmp_path / "a"), console=QUIET, roles=toy_components)
    leave_lock(tmp_path / "b")  # killed before it had a plan
    assert build(order(tmp_path / "b", count=4), console=QUIET, roles=toy_components).complete


def test_a_full_disk_keeps_the_shards_that_are_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 44) as disk:
        with pytest.raises(OutputError, match=r"shard-00000\d.parquet can't be written \(No space left on device\)"):
            build(order(disk / "a", count=40), console=QUIET, roles=toy_components)
        assert not [name for name in names(disk) if "partial" in name or "lock" in name]
        whole = len(open_bank(disk / "a").trajectories)
        assert whole >= 4
    assert whole % 4 == 0


def test_an_interrupted_build_goes_on_and_a_whole_one_is_left_alone(tmp_path: Path) -> None:
    first = build(order(tmp_path / "a"), console=QUIET, roles=interrupted_components)
    assert (first.trajectory_count, first.complete) == (4, False)
    kept = shards(tmp_path / "a")[0].stat().st_mtime_ns
    second = build(order(tmp_path / "a"), console=QUIET, roles=toy_components)
    assert (second.new_count, second.complete) == (2, True)
    assert shards(tmp_path / "a")[0].stat().st_mtime_ns == kept
    build(order(tmp_path / "b"), console=QUIET, roles=toy_components)
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    assert build(order(tmp_path / "a"), console=QUIET, roles=toy_components).new_count == 0


def test_a_larger_count_grows_a_bank(tmp_path: Path) -> None:
    build(order(tmp_path), console=QUIET, roles=toy_components)
    grown = build(order(tmp_path, count=9), console=QUIET, roles=toy_components)
    assert grown.complete
    assert len(open_bank(tmp_path).trajectories) == 9


def test_another_configuration_or_folder_is_refused(tmp_path: Path) -> None:
    build(order(tmp_path / "bank"), console=QUIET, roles=toy_components)
    sampler = {"num_steps": 9, "warmup_steps": 2, "finish_steps": 2}
    with pytest.raises(ArchiveError, match=r"sampler\.num_steps"):
        build(order(tmp_path / "bank", sampler=sampler), console=QUIET, roles=toy_components)
    with pytest.raises(ArchiveError, match="train split"):
        build(replace(order(tmp_path / "bank"), split="test"), console=QUIET, roles=toy_components)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ArchiveError, match="holds something that is no trajectory bank"):
        build(order(tmp_path / "other"), console=QUIET, roles=toy_components)


def test_a_trajectory_without_luck_ends_the_build_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match=r"no luck\. What is finished"):
        build(order(tmp_path), console=QUIET, roles=failing_components)


def test_info_counts_by_tier_and_lets_an_oracle_stop(tmp_path: Path) -> None:
    build(order(tmp_path), console=QUIET, roles=toy_components)
    info = describe(tmp_path, order(tmp_path).config)
    assert sum(tier.count for tier in info.tiers) == 6
    assert all(tier.oracle_nfe <= tier.full_nfe and tier.oracle_gain >= 0 for tier in info.tiers)
    assert info.as_json()["every"] == 2
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    for shown in tables(info):
        console.print(shown)
    assert "oracle NFE" in console.export_text()
