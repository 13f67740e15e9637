"""Folders of tiny pipelines, shared by the tests of backbones and sampling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.addiffusion.tiny_models import save_embedded_like, save_sd15_like


@pytest.fixture(scope="session")
def sd15_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd15_like(tmp_path_factory.mktemp("sd15_like"))


@pytest.fixture(scope="session")
def embedded_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_embedded_like(tmp_path_factory.mktemp("embedded_like"))
