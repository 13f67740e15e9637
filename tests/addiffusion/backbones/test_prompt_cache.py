"""Prompts that do not fit, and prompts without words, in every family."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone, prompt_cache
from addiffusion.backbones.base import Backbone
from addiffusion.backbones.sd3 import Sd3Backbone
from addiffusion.config import BackboneSection, RefineSection, SamplerSection
from addiffusion.quiet_loading import quiet_loading
from addiffusion.sampling.engine import Engine

LONG = "abc " * 120
"""360 letters; with T5's mark before each word 480 tokens."""
CLIP, T5 = "reads 77 of 362 tokens", "reads 256 of 481 tokens"
SAID = {
    "sd15": f"text_encoder {CLIP}",
    "sdxl": f"text_encoder {CLIP}, text_encoder_2 {CLIP}",
    "sd3": f"text_encoder {CLIP}, text_encoder_2 {CLIP}, text_encoder_3 {T5}",
    "flux": f"text_encoder {CLIP}, text_encoder_2 {T5}",
}
KINDS = {"sd15": "stable_diffusion"}


@pytest.fixture(scope="module", params=SAID)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(family: str, request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(section(family, request.getfixturevalue(f"{family}_like")))


def section(family: str, folder: Path) -> BackboneSection:
    options: dict[str, Any] = {"kind": KINDS.get(family, family), "guidance_scale": 1.0}
    return BackboneSection(path=str(folder), device="cpu", image_size=16, **options)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Every warning, those of the libraries included."""
    for name in ("diffusers", "transformers"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


def test_what_every_encoder_cuts_off_is_said_once_per_prompt(
    family: str, backbone: Backbone, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_cache, "CACHE_BYTES", 0)  # nothing is kept: every call encodes anew
    backbone.encode_prompts(["cat"])
    assert said() == []
    for _ in range(2):
        backbone.encode_prompts([LONG, "cat", LONG])
    assert said() == [
        f"the prompt '{LONG[:60]}...' is too long: {SAID[family]}; its end has no effect where it is cut."
    ]


def test_only_the_encoders_that_cut_are_at_fault(sd3_like: Path, said: Callable[[], list[str]]) -> None:
    """T5 reads what both CLIPs do not; without T5 nobody does."""
    with quiet_loading():
        pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
            sd3_like, text_encoder_3=None, tokenizer_3=None, low_cpu_mem_usage=False
        )
        without_t5 = Sd3Backbone(pipeline, section("sd3", sd3_like))
    load_backbone(section("sd3", sd3_like)).encode_prompts(["ab " * 50])
    (embedding,) = without_t5.encode_prompts(["ab " * 50])
    clips = "text_encoder reads 77 of 102 tokens, text_encoder_2 reads 77 of 102 tokens"
    both, clips_alone = said()
    assert f"{clips}, text_encoder_3 reads 151 of 151 tokens; " in both
    assert f"{clips}; " in clips_alone
    assert embedding.hidden.isfinite().all()


def test_the_embedded_model_says_so_too(said: Callable[[], list[str]]) -> None:
    (embedding,) = load_backbone(BackboneSection(device="cpu")).encode_prompts(["a red circle " * 20])
    assert "text_encoder reads 24 of 62 tokens" in said()[0]
    assert embedding.keep.sum() == 22


def test_a_prompt_without_words_is_drawn_and_its_refine_redoes_nothing(backbone: Backbone) -> None:
    (empty,) = backbone.encode_prompts([""])
    assert empty.hidden.isfinite().all()
    assert not empty.keep.any()
    sampler = SamplerSection(solver="pipeline", num_steps=3, warmup_steps=1, finish_steps=0)
    engine = Engine(backbone, sampler, RefineSection(), slots=1, guidance_scale=1.0)
    engine.admit(0, embedding=empty, seed=0)
    while engine.busy:
        engine.tick()
        engine.act(dict.fromkeys(engine.deciding(), Action.REFINE))
    mask = engine.refine_mask(0)
    assert engine.z0_pred.isfinite().all()
    assert mask is not None
    assert torch.equal(mask, torch.zeros(backbone.latent_shape[1:]))
    assert engine.info(0).attention_entropy == pytest.approx(0.0, abs=1e-6)
