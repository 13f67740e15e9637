"""What tests of backbones share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """A family's folder to damage."""

    def make(family: str) -> Path:
        return Path(shutil.copytree(request.getfixturevalue(f"{family}_like"), tmp_path / family))

    return make
