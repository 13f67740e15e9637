"""What is found out on the workers ends a run on Ray before it begins."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.config import Config
from addiffusion.errors import ConfigError
from launch.training.preflight import Plan
from launch.training.train import run


def test_a_table_that_could_not_be_drawn_is_refused_before_the_run_begins(ray_cluster: str, tmp_path: Path) -> None:
    from launch.runtime.distributed import distributed_components  # noqa: PLC0415 - after the fixture has set Ray's environment

    config = Config.model_validate(
        {
            "rollout": {"slots": 2, "workers": 1},
            "sampler": {"num_steps": 6, "finish_steps": 2},
            "policy": {"hidden": [32]},
            "evaluation": {"prompt_count": 3, "static_steps": 5000},
        }
    )
    plan = Plan(config=config, path=tmp_path / "run", train_prompts=(), test_prompts=())
    with pytest.raises(ConfigError, match=r"^evaluation\.static_steps is 5000, but the model's scheduler knows only"):
        run(plan, console=Console(file=io.StringIO()), roles=distributed_components)
    assert not plan.path.exists()
