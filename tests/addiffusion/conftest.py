"""Folders of tiny pipelines, shared by the tests of backbones and sampling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.addiffusion.tiny_models import (
    save_embedded_like,
    save_flux_like,
    save_sd3_like,
    save_sd15_like,
    save_sdxl_like,
)


@pytest.fixture(scope="session")
def sd15_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd15_like(tmp_path_factory.mktemp("sd15_like"))


@pytest.fixture(scope="session")
def embedded_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_embedded_like(tmp_path_factory.mktemp("embedded_like"))


@pytest.fixture(scope="session")
def sdxl_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sdxl_like(tmp_path_factory.mktemp("sdxl_like"))


@pytest.fixture(scope="session")
def sd3_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd3_like(tmp_path_factory.mktemp("sd3_like"))


@pytest.fixture(scope="session")
def flux_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_flux_like(tmp_path_factory.mktemp("flux_like"))
