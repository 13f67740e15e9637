"""Baselines of the literature: those that can, draw; distilled models at small size; the rest is skipped by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.backbones.guided import GuidedPipeline
from addiffusion.config import BackboneSection, Config
from addiffusion.errors import ConfigError
from addiffusion.records import Ticket
from evaluation.comparison.guided import GuidedRollouts
from launch.comparing.literature import EXCITE, LCM, SAG, TURBO, literature
from tests.addiffusion.backbones.test_lora import make_lora
from tests.addiffusion.tiny_models import save_sd15_like, save_sdxl_like
from tests.fakes import ToyScoring, make_prompt

pytestmark = pytest.mark.usefixtures("figures_once")


def ticket(number: int = 0, seed: int = 7) -> Ticket:
    return Ticket(
        ticket_id=number,
        prompt=make_prompt(number, "a red circle left of a blue square"),
        seed=seed,
        action_seed=0,
        c_nfe=0.0,
        forced=Action.CONTINUE,
    )


def test_without_weights_distilled_models_are_skipped_by_name_with_the_reason() -> None:
    found = literature(Config())
    assert [one.name for one in found.contestants] == [SAG, EXCITE]
    assert found.skipped == {
        "LCM-LoRA-4": "its weights are not at hand: give --lcm-lora FILE, a LoRA of this very model",
        "SDXL-Turbo-4": "its weights are not at hand: give --sdxl-turbo FOLDER with its weights",
    }
    sdxl = Config.model_validate({"backbone": {"kind": "sdxl", "path": "/nowhere"}})
    assert set(literature(sdxl).skipped) == {
        "self-attention guidance",
        "Attend-and-Excite",
        "LCM-LoRA-4",
        "SDXL-Turbo-4",
    }


@pytest.mark.parametrize(("guidance", "least_evals"), [(SAG, 9), (EXCITE, 9)])
def test_guided_pipelines_draw_with_the_embedded_model_and_count_every_pass(guidance: str, least_evals: int) -> None:
    config = Config()
    sampler = config.sampler.model_copy(update={"num_steps": 3, "warmup_steps": 1, "finish_steps": 0})
    pipeline = GuidedPipeline(guidance, config.backbone)  # pyright: ignore[reportArgumentType]
    rollouts = GuidedRollouts(pipeline, ToyScoring(), sampler)
    collected = rollouts.collect([ticket(0), ticket(1, seed=8)])
    one, two = collected.episodes
    assert one.image.shape == (64, 64, 3)
    assert not np.array_equal(one.image, two.image)
    assert one.nfe == 3
    assert one.network_evals >= least_evals
    again = rollouts.collect([ticket(0)]).episodes[0]
    assert np.array_equal(again.image, one.image)


def test_words_that_name_something_are_what_attend_and_excite_attends_to() -> None:
    pipeline = GuidedPipeline("attend-and-excite", Config().backbone)
    tokens = pipeline._pipeline.get_indices("a red circle left of a blue square")
    named = [tokens[index].removesuffix("</w>") for index in pipeline._subjects("a red circle left of a blue square")]
    assert named == ["red", "circle", "blue", "square"]


def test_another_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="not on sdxl"):
        GuidedPipeline("attend-and-excite", BackboneSection(kind="sdxl", path="/nowhere"))


def test_distilled_models_run_at_small_size(tmp_path: Path) -> None:
    model = save_sd15_like(tmp_path / "sd15")
    section = BackboneSection(kind="stable_diffusion", path=str(model), device="cpu")
    unet = load_backbone(section).pipeline.unet  # pyright: ignore[reportAttributeAccessIssue]
    save_file(make_lora(unet), tmp_path / "lcm.safetensors")
    turbo = save_sdxl_like(tmp_path / "turbo")
    config = Config.model_validate({"backbone": section.model_dump(), "rollout": {"slots": 2}})
    found = literature(config, lcm_lora=tmp_path / "lcm.safetensors", sdxl_turbo=turbo)
    assert not found.skipped
    contestants = {one.name: one for one in found.contestants}
    baselines = {one.name: one for one in found.baselines}
    for name in (LCM, TURBO):
        collected = baselines[name].make(ToyScoring()).collect([ticket(0)], sampler=contestants[name].sampler)
        episode = collected.episodes[0]
        assert (episode.nfe, episode.network_evals) == (4, 4)
        assert episode.image.dtype == np.uint8
