"""A bank's plan as it lies on a disk: read whole, or refused with what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from addiffusion.bank.plan import PLAN_FILE, BankPlan, read_plan
from addiffusion.errors import ArchiveError
from addiffusion.observation.layout import Layout

PLAN = BankPlan(
    identity={"sampler.num_steps": 6},
    layout=Layout(names=("clip", "quality"), widths=(4, 8)),
    split="train",
    count=3,
    stride=2,
    metrics=("scene_soft",),
    shard_size=16,
)


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    PLAN.write(tmp_path)
    assert read_plan(tmp_path) == PLAN


def test_the_file_of_a_plan_names_the_stride_after_its_configuration_key(tmp_path: Path) -> None:
    PLAN.write(tmp_path)
    assert list(json.loads((tmp_path / PLAN_FILE).read_text())) == [
        "schema_version",
        "identity",
        "layout",
        "split",
        "count",
        "every",
        "metrics",
        "shard_size",
        "replays",
    ]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("count", None, "count"),
        ("count", "many", "count"),
        ("every", "many", "every"),
        ("layout", {"names": ["clip"], "widths": []}, "widths"),
        ("layout", [], "layout"),
        ("metrics", 3, "metrics"),
        ("identity", [], "identity"),
    ],
)
def test_a_damaged_plan_is_refused_by_the_key(tmp_path: Path, key: str, value: Any, told: str) -> None:
    PLAN.write(tmp_path)
    file = tmp_path / PLAN_FILE
    values = {**json.loads(file.read_text()), key: value}
    file.write_text(json.dumps({name: one for name, one in values.items() if one is not None}))
    with pytest.raises(ArchiveError, match=f"is damaged .*{told}"):
        read_plan(tmp_path)
