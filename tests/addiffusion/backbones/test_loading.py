"""Folders as they lie on people's disks: every damage is one sentence that names the part, and nothing is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

from addiffusion.backbones import load_backbone
from addiffusion.errors import ConfigError, WeightsError
from tests.addiffusion.backbones.family_folders import KINDS, MODELS, change, section

PARTS = [(family, part) for family, parts in MODELS.items() for part in parts]


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
