"""Images that are not square: the family's own, with all that the engine does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from addiffusion import AdaptivePipeline
from addiffusion.actions import Action
from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.errors import ConfigError
from tests.addiffusion.pipeline.tiny_policies import load_base, make_policy, scale_of, seeded

HEIGHT, WIDTH = 16, 24


def drawn(pipe: Any, **options: Any) -> Any:
    given = {"height": HEIGHT, "width": WIDTH, "output_type": "np", "generator": seeded(5), **options}
    return pipe("a red cat", **given)


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the attention maps that refines ask for."""
    seen: list[tuple[int, ...]] = []
    last_pass = PipelineBackbone.last_pass

    def watched(self: PipelineBackbone) -> Any:
        record = last_pass(self)
        seen.append((*record.attention_maps([0]).shape[2:], *record.self_attention_maps([0]).shape[1:]))
        return record

    monkeypatch.setattr(PipelineBackbone, "last_pass", watched)
    return seen


def test_a_wide_image_is_the_familys_and_can_be_refined(
    family: str, folder: Path, base: Any, maps: list[tuple[int, ...]]
) -> None:
    reads = {"max_sequence_length": 256} if family == "flux" else {}
    expected = drawn(base, num_inference_steps=5, guidance_scale=scale_of(family), **reads).images
    pipe: Any = AdaptivePipeline.from_pipe(base, policy=make_policy(family, folder, Action.CONTINUE))
    assert expected.shape == (1, HEIGHT, WIDTH, 3)
    assert np.abs(drawn(pipe).images - expected).max() < 1e-3
    refined = drawn(pipe, policy=make_policy(family, folder, Action.REFINE))
    assert refined.actions[0][0] == "refine"
    assert refined.images.shape == expected.shape
    assert set(maps) == {(HEIGHT // 2, WIDTH // 2) * 2}


def test_a_size_that_halves_with_a_rest_is_the_familys_too(caplog: pytest.LogCaptureFixture) -> None:
    """72 x 88 pixels are 18 x 22 latents, 9 x 11 and 5 x 6 below them; the policy is told that it knows another."""
    pipe: Any = AdaptivePipeline.from_pretrained("embedded", policy="shipped-latent")
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"height": 72, "width": 88, "num_inference_steps": 5, "guidance_scale": 2.0}
    free = drawn(pipe, **given, policy=None).images
    with torch.no_grad():
        pipe.policy.network.layers[-1].bias[Action.CONTINUE] = 50.0
    led = drawn(pipe, **given)
    assert led.images.shape == free.shape == (1, 72, 88, 3)
    assert "another image size (64 x 64 pixels, and this is 72 x 88)" in caplog.text
    assert led.nfe == [5]
    assert np.abs(led.images - free).max() < 1e-3


def test_one_side_left_out_is_the_models_own(going_on: Any) -> None:
    assert drawn(going_on, width=None).images.shape[1:3] == (HEIGHT, going_on.unet.config.sample_size * 2)


def test_a_size_that_a_family_can_not_make_is_one_sentence(flux_like: Path, sd3_like: Path) -> None:
    flux, sd3 = (
        AdaptivePipeline.from_pipe(load_base(name, folder), policy=make_policy(name, folder))
        for name, folder in (("flux", flux_like), ("sd3", sd3_like))
    )
    with pytest.raises(ConfigError, match=r"width=18 can't be taken: .* multiples of 4; the nearest is 16"):
        drawn(flux, width=18)
    with pytest.raises(ConfigError, match=r"height=36 can't be taken: this model places at most 32 pixels a side"):
        drawn(sd3, height=36)
    assert torch.is_tensor(drawn(flux, output_type="pt").images)
