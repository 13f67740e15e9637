"""Benchmarks on random weights have the shape of the real models: counted on a device that holds no memory."""

from __future__ import annotations

from typing import Any

import pytest

from launch.bench.engine import make_backbone
from launch.bench.orders import EngineOrder


@pytest.mark.parametrize(
    ("kind", "parameters", "latent"),
    [("sd15-random", 859_520_964, (4, 64, 64)), ("sdxl-random", 2_567_463_684, (4, 128, 128))],
)
def test_the_denoiser_is_as_large_as_the_one_that_is_published(kind: str, parameters: int, latent: Any) -> None:
    order = EngineOrder(
        backbone=kind,
        device="meta",
        threads=1,
        dtype="bfloat16",
        compile="off",
        slots=1,
        guidance_scale=3.5,
        seconds=0.01,
        rounds=1,
    )
    backbone: Any = make_backbone(order)
    assert sum(weight.numel() for weight in backbone.pipeline.unet.parameters()) == parameters
    assert backbone.latent_shape == latent
    assert backbone.image_size == 8 * latent[1]
