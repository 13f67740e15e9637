"""A family's whole way at a few kilobytes: trained as its own file says, by the roles of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.runtime.console import UNSEEN
from launch.training.preflight import prepare
from launch.training.train import run
from scripts import full_size_weights
from scripts.full_size.models import Order
from tests.small_run import SMALL

IN_SMALL = ("backbone.image_size=64", "scorers.kind=embedded", "prompts.source=embedded", "rollout.slots=2")
"""Images that the embedded scorers can judge."""


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_a_family_is_trained_as_its_file_says(family: str, tmp_path: Path) -> None:
    full_size_weights.write(tmp_path, [family], Order(tiny=True, t5=family != "sd3", flux_blocks=(1, 1)), UNSEEN)
    model = (f"backbone.kind={family}", f"backbone.path={tmp_path / family}", f"run.dir={tmp_path / 'run'}")
    outcome = run(prepare([], [*model, *IN_SMALL, *SMALL]), console=UNSEEN)
    assert outcome.result is not None
    assert outcome.result["episodes_dropped"] == 0
    rows = 1 if family == "flux" else 2  # schnell takes no guidance
    assert outcome.result["mean_network_evals"] == rows * outcome.result["mean_nfe"]
