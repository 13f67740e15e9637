"""One suite of the shipped scorers for all scorer tests."""

from __future__ import annotations

import pytest
import torch

from addiffusion.config import ScorersSection
from addiffusion.embedded.world.data import SceneBatch, scene_batch
from addiffusion.scorers.families import load_suite
from addiffusion.scorers.suite import ScorerSuite


@pytest.fixture(scope="session")
def suite() -> ScorerSuite:
    """Four images a batch, so that small requests need several."""
    torch.set_num_threads(1)
    return load_suite(ScorersSection(device="cpu", batch_images=4))


@pytest.fixture(scope="session")
def scenes() -> SceneBatch:
    """Scenes that no model was trained on."""
    return scene_batch(20_240_607, 0, 100)
