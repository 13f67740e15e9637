"""Folders that are whole and not of the plain form: one variant, spared parts, other options of a part."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file

from addiffusion.backbones import load_backbone
from addiffusion.backbones.loading import load_pipeline
from addiffusion.backbones.part_files import weights_in
from addiffusion.errors import ConfigError, WeightsError
from tests.addiffusion.backbones.family_folders import KINDS, MODELS, change, section
from tests.addiffusion.tiny_models import make_unet


def to_variant(folder: Path, name: str) -> None:
    """As a download of one variant leaves it: half precision, and no file of the plain name."""
    for file in folder.rglob("*.safetensors"):
        half = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.{name}.safetensors"), metadata={"format": "pt"})
        file.unlink()


@pytest.mark.parametrize("family", KINDS)
def test_a_folder_of_one_variant_is_read(
    family: str, copy: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    folder = copy(family)
    to_variant(folder, "fp16")
    half, full = (
        load_pipeline(section(family, path), backbone_class(family))
        for path in (folder, request.getfixturevalue(f"{family}_like"))
    )
    for part in MODELS[family]:
        expected = getattr(full, part).state_dict()
        for name, tensor in getattr(half, part).state_dict().items():
            assert torch.equal(tensor.float(), expected[name].half().float()), name


def backbone_class(family: str) -> Any:
    names = {
        "sd15": "StableDiffusionPipeline",
        "sdxl": "StableDiffusionXLPipeline",
        "sd3": "StableDiffusion3Pipeline",
        "flux": "FluxPipeline",
    }
    return getattr(diffusers, names[family])


def test_plain_weights_go_before_variants_and_two_variants_are_a_question(tmp_path: Path) -> None:
    for name in ("model.fp16.safetensors", "model.ema.safetensors", "config.json"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match="in the variants ema and fp16 and in no plain form"):
        weights_in(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert (weights_in(tmp_path).variant, weights_in(tmp_path).path) == (None, str(tmp_path / "model.safetensors"))
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in (1, 2):
        (shards / f"diffusion_pytorch_model.fp16-0000{number}-of-00002.safetensors").touch()
    assert (weights_in(shards).variant, weights_in(shards).path) == ("fp16", str(shards))


def test_sd3_without_t5_loads_from_a_folder_that_has_none(
    copy: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """As diffusers does when it is told to leave T5 out."""
    folder = copy("sd3")
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, low_cpu_mem_usage=False
    )
    hidden, _, pooled, _ = pipeline.encode_prompt("a cat", None, None, do_classifier_free_guidance=False)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    (embedding,) = load_backbone(section("sd3", folder)).encode_prompts(["a cat"])
    assert "has no text_encoder_3: prompts are read by the other text encoders alone" in caplog.text
    torch.testing.assert_close(embedding.hidden, hidden[0].detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(embedding.pooled, pooled[0].detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("sd15", {"time_cond_proj_dim": 16}, "time_cond_proj_dim=16"),
        ("sd15", {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ("sd15", {"num_class_embeds": 3}, "num_class_embeds=3"),
        ("sd15", {"addition_embed_type": "text"}, "addition_embed_type='text'"),
        ("sd15", {"encoder_hid_dim": 16, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim=16"),
        ("sd15", {"out_channels": 8}, "out_channels=8"),
        ("sdxl", {"addition_embed_type": None}, "addition_embed_type=None"),
    ],
)
def test_conditions_that_the_engine_does_not_feed_are_refused_by_name(
    family: str, options: dict[str, Any], words: str, copy: Callable[[str], Path]
) -> None:
    folder = copy(family)
    width = 32 if family == "sdxl" else 16
    make_unet(cross_attention_dim=width, **options).save_pretrained(folder / "unet")
    with pytest.raises(ConfigError, match=f"network is conditioned by {words}|network gives {words}"):
        load_backbone(section(family, folder))


STATISTICS = {"latents_mean": [-1.6, 1.1, 3.2, -1.4], "latents_std": [8.4, 5.9, 6.6, 5.2]}


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("values", [STATISTICS, {"shift_factor": 0.3}], ids=["mean and std", "shift"])
def test_an_image_is_decoded_as_the_familys_pipeline_does(
    family: str, values: dict[str, Any], copy: Callable[[str], Path]
) -> None:
    folder = copy(family)
    change(folder / "vae/config.json", **values)
    backbone: Any = load_backbone(section(family, folder))
    z0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pipeline, given = backbone.pipeline, z0
    pipeline.set_progress_bar_config(disable=True)
    if family == "flux":
        given = pipeline._pack_latents(z0, 1, 4, 8, 8)
    one: Any = {} if family == "flux" else {"guidance_scale": 1.0}

    def keep(_pipeline: Any, _step: int, _t: Any, _tensors: Any) -> dict[str, Any]:
        return {"latents": given}

    drawn = pipeline(
        "cat",
        num_inference_steps=1 if family != "sd15" else 2,
        latents=given,
        height=16,
        width=16,
        output_type="np",
        callback_on_step_end=keep,
        **one,
    ).images[0]
    difference = (torch.tensor(drawn * 255).round() - torch.tensor(backbone.decode(z0)[0]).float()).abs()
    assert difference.max() <= 1


def test_statistics_of_other_channels_are_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("sdxl")
    change(folder / "vae/config.json", latents_mean=[0.0], latents_std=[1.0, 2.0])
    with pytest.raises(WeightsError, match=r"latents_mean has 1 value.* 4 channels"):
        load_backbone(section("sdxl", folder))
