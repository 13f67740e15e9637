"""Tiny pipelines of each family, loaded once: no test may alter them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from addiffusion import AdaptivePipeline
from addiffusion.actions import Action
from tests.addiffusion.backbones.family_runs import KINDS
from tests.addiffusion.pipeline.tiny_policies import load_base, make_policy


@pytest.fixture(scope="session", params=KINDS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def folder(family: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{family}_like")


@pytest.fixture(scope="session")
def base(family: str, folder: Path) -> Any:
    return load_base(family, folder)


@pytest.fixture(scope="session")
def sd15(sd15_like: Path) -> Any:
    return load_base("sd15", sd15_like)


@pytest.fixture
def drawing(sd15: Any, sd15_like: Path) -> Any:
    """A pipeline whose policy is near its prior: by ``deterministic=False`` images differ in what is done to them."""
    return AdaptivePipeline.from_pipe(sd15, policy=make_policy("sd15", sd15_like))


@pytest.fixture
def going_on(sd15: Any, sd15_like: Path) -> Any:
    """A pipeline whose policy always continues."""
    return AdaptivePipeline.from_pipe(sd15, policy=make_policy("sd15", sd15_like, Action.CONTINUE))
