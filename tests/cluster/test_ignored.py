"""What commands leave in the working folder is neither committed nor uploaded with a job."""

from __future__ import annotations

import pytest
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files  # what `ray job submit` asks

from tests.cluster.head import ROOT


@pytest.mark.parametrize("gitignore", [True, False])
def test_what_commands_leave_is_not_uploaded_and_what_they_need_is(*, gitignore: bool) -> None:
    excluded = get_excludes_from_ignore_files(ROOT, include_gitignore=gitignore)

    def leaves_out(name: str) -> bool:
        return any(rule(ROOT / name) for rule in excluded)

    for folder in ("runs/first/config.yaml", "banks/train/plan.json", "evaluations/a/images", "models/sd15/unet"):
        assert leaves_out(folder), folder
    for needed in (
        "addiffusion/bank/archive.py",
        "addiffusion/embedded/weights/a",
        "evaluation/report/training_plots.py",
        "uv.lock",
    ):
        assert not leaves_out(needed), needed
