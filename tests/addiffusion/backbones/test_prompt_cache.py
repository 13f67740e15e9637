"""Prompts that do not fit, and prompts without words, in every family."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.backbones.prompt_cache import PromptCache, Reader
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
    monkeypatch.setattr(cast("Any", backbone)._prompts.cache, "capacity", 0)  # nothing is kept: every call encodes anew
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


class Letters:
    """A tokenizer of any text there can be, half of a surrogate pair included: a token is a character."""

    def __call__(self, prompt: str, *, verbose: bool) -> Any:
        return SimpleNamespace(input_ids=list(prompt))


@pytest.mark.parametrize(
    "part", ["a \x1b[31mred\x07", "a\r\n\x00\x85\u2028", "a \u202ered", "\u732b", "e" + "\u0301" * 99, "\udcff \ud83d"]
)
@pytest.mark.parametrize("times", [30, 30_000])
def test_a_long_prompt_is_told_of_in_a_short_printable_line(
    part: str, times: int, said: Callable[[], list[str]]
) -> None:
    reader = Reader(name="text_encoder", tokenizer=Letters(), length=20)
    nothing = PromptEmbedding(hidden=torch.zeros(1, 1), keep=torch.zeros(1, dtype=torch.bool))
    PromptCache(lambda prompts: [nothing] * len(prompts), lambda: [reader])([part * times])
    (line,) = said()
    assert line.isprintable()
    assert f"text_encoder reads 20 of {len(part) * times} tokens" in line
    assert len(line) < 800
    line.encode("utf-8")


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
