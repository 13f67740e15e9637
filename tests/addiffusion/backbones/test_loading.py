"""Folders as they lie on people's disks: every damage is one sentence that names the part, and nothing is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file

from addiffusion.backbones import load_backbone
from addiffusion.backbones.loading import load_pipeline
from addiffusion.backbones.part_files import weights_in
from addiffusion.config import BackboneSection
from addiffusion.errors import ConfigError, WeightsError
from tests.addiffusion.tiny_models import make_unet

KINDS = {"sd15": "stable_diffusion", "sdxl": "sdxl", "sd3": "sd3", "flux": "flux"}
MODELS = {
    "sd15": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    "flux": ("transformer", "vae", "text_encoder", "text_encoder_2"),
}
PARTS = [(family, part) for family, parts in MODELS.items() for part in parts]


def section(family: str, folder: Path, **options: Any) -> BackboneSection:
    return BackboneSection.model_validate(
        {"kind": KINDS[family], "path": str(folder), "device": "cpu", "guidance_scale": 1.0} | options
    )


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """A family's folder to damage."""

    def make(family: str) -> Path:
        return Path(shutil.copytree(request.getfixturevalue(f"{family}_like"), tmp_path / family))

    return make


def weights_of(part: Path) -> Path:
    return next(part.glob("*.safetensors"))


def drop(part: Path) -> str:
    file = weights_of(part)
    tensors = load_file(file)
    name = min(tensors)
    tensors.pop(name)
    save_file(tensors, file, metadata={"format": "pt"})
    return f"tensor '.*{name.rpartition('.')[2]}' is missing"


def rename(part: Path) -> str:
    file = weights_of(part)
    tensors = load_file(file)
    name = max(tensors)
    tensors[f"{name}.old"] = tensors.pop(name)
    save_file(tensors, file, metadata={"format": "pt"})
    return r"is missing.*; tensor '.*\.old' has no place"


def reshape(part: Path) -> str:
    file = weights_of(part)
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.dim() > 1)
    tensors[name] = torch.zeros(3, *tensors[name].shape[1:])
    save_file(tensors, file, metadata={"format": "pt"})
    return f"tensor '.*{name.rpartition('.')[2]}' is of shape 3"


def cut(part: Path) -> str:
    file = weights_of(part)
    file.write_bytes(file.read_bytes()[:-100])
    return file.name


def empty(part: Path) -> str:
    weights_of(part).write_bytes(b"")
    return weights_of(part).name


def pickled(part: Path) -> str:
    torch.save({"weight": torch.zeros(2)}, weights_of(part))
    return weights_of(part).name


def absent(part: Path) -> str:
    weights_of(part).unlink()
    return part.name


def list_config(part: Path) -> str:
    (part / "config.json").write_text("[]")
    return "can't be loaded as a"


def cut_config(part: Path) -> str:
    file = part / "config.json"
    file.write_text(file.read_text()[:40])
    return "can't be loaded as a"


DAMAGES = [drop, rename, reshape, cut, empty, pickled, absent, list_config, cut_config]
CASES = [
    pytest.param(family, part, damage, id=f"{family}-{part}-{damage.__name__}")
    for family, part in PARTS
    for damage in (DAMAGES if family == "sd15" else [drop, cut])
]


@pytest.mark.parametrize(("family", "part", "damage"), CASES)
def test_damaged_weights_are_refused_by_part(family: str, part: str, damage: Any, copy: Callable[[str], Path]) -> None:
    folder = copy(family)
    words = damage(folder / part)
    with pytest.raises(WeightsError, match=words) as caught:
        load_backbone(section(family, folder))
    assert f"backbone.path={str(folder)!r}" in caught.value.message
    assert part in caught.value.message
    assert caught.value.message.endswith("copy or download the whole folder again.")


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("part", ["vae", "scheduler", "tokenizer", "text_encoder"])
def test_a_part_that_is_not_there_is_named(family: str, part: str, copy: Callable[[str], Path]) -> None:
    folder = copy(family)
    shutil.rmtree(folder / part)
    with pytest.raises(WeightsError, match=rf"has no folder {part}, which its model_index\.json names"):
        load_backbone(section(family, folder))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "model_index.json can't be read as a JSON object"),
        ('{"_class_name": "StableDiff', "model_index.json can't be read as a JSON object"),
        ("[" * 5000, "model_index.json can't be read as a JSON object"),
        ("[1, 2]", r"model_index.json can't be read as a JSON object \(it holds a list\)"),
        ("{}", "holds a None, which backbone.kind does not stand for"),
        ('{"_class_name": "StableDiffusionPipeline"}', "says None of vae"),
        ('{"_class_name": "StableDiffusionPipeline", "vae": "AutoencoderKL"}', "says 'AutoencoderKL' of vae"),
        ('{"_class_name": "StableDiffusionPipeline", "vae": [null, null]}', r"says \[None, None\] of vae"),
    ],
)
def test_an_index_that_says_nothing_usable(content: str, words: str, copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    (folder / "model_index.json").write_text(content)
    with pytest.raises((WeightsError, ConfigError), match=words):
        load_backbone(section("sd15", folder))


@pytest.mark.parametrize(
    "name", ["LatentConsistencyModelPipeline", "StableDiffusionInpaintPipeline", "KandinskyPipeline"]
)
def test_pipelines_of_other_classes_are_refused(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    change(folder / "model_index.json", _class_name=name)
    with pytest.raises(ConfigError, match=f"holds a {name}, .* give a folder of a StableDiffusionPipeline"):
        load_backbone(section("sd15", folder))


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("unet", ["diffusers", "UNetMotionModel"]),
        ("unet", ["my_network", "UNet2DConditionModel"]),
        ("unet", ["diffusers", "NoSuchModel"]),
        ("vae", ["diffusers", "ConsistencyDecoderVAE"]),
        ("text_encoder", ["transformers", "BertModel"]),
        ("tokenizer", ["transformers", "CLIPImageProcessor"]),
        ("scheduler", ["diffusers", "UNet2DConditionModel"]),
    ],
)
def test_parts_of_other_classes_are_refused(part: str, entry: list[str], copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    change(folder / "model_index.json", **{part: entry})
    with pytest.raises(WeightsError, match=rf"has a {entry[0]}\.{entry[1]} as {part}, where this family has a"):
        load_backbone(section("sd15", folder))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# ---------------------------------------------------------------- tokenizers


def test_a_tokenizer_without_its_files_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer can't be loaded .*no merges\.txt and no vocab\.json and no tok"):
        load_backbone(section("sd15", folder))


def test_a_tokenizer_that_was_cut_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    file = folder / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(WeightsError, match="tokenizer can't be loaded from"):
        load_backbone(section("sd15", folder))


def test_a_tokenizer_without_a_length_is_refused_when_loaded(copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer of text_encoder cuts at 10+\d+ tokens, .* 77"):
        load_backbone(section("sd15", folder))


def test_a_tokenizer_of_another_model_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("sd15")
    file = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] |= {f"word{number}</w>": 54 + number for number in range(20)}
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"tokenizer of text_encoder has 74 words, .* 54"):
        load_backbone(section("sd15", folder))


# ---------------------------------------------------------------- previews


def test_a_preview_of_another_class_is_refused(sd15_like: Path) -> None:
    with pytest.raises(WeightsError, match=r"backbone\.preview=.* holds a model of class AutoencoderKL, not an Auto"):
        load_backbone(section("sd15", sd15_like, preview=str(sd15_like / "vae")))


def test_a_preview_of_other_channels_is_refused(sd15_like: Path, tmp_path: Path) -> None:
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=16,
    ).save_pretrained(tmp_path)
    with pytest.raises(
        WeightsError, match=r"backbone\.preview decodes latents of 16 channels, and this model's have 4"
    ):
        load_backbone(section("sd15", sd15_like, preview=str(tmp_path)))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_preview_is_refused(damage: Any, sd15_like: Path, embedded_like: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedded_like / "vae", tmp_path / "preview"))
    words = damage(folder)
    with pytest.raises(WeightsError, match=words) as caught:
        load_backbone(section("sd15", sd15_like, preview=str(folder)))
    assert "backbone.preview=" in caught.value.message


# ---------------------------------------------------------------- variants and parts that can be spared


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


# ---------------------------------------------------------------- what the engine does not feed


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


# ---------------------------------------------------------------- autoencoders


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
