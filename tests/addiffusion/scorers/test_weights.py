"""Every scorer refuses weights that are incomplete, of another model or damaged, and names the first tensor."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from addiffusion.assets import weights_path
from addiffusion.config import ScorersSection
from addiffusion.config.scorers import AestheticSection, ClipSection, DinoSection, HpsSection, PickScoreSection
from addiffusion.embedded.models.aesthetic import load_aesthetic
from addiffusion.embedded.models.clip import CLIP_WIDTH, load_clip
from addiffusion.embedded.models.dino import load_dino
from addiffusion.embedded.models.preference import load_preference
from addiffusion.errors import WeightsError
from addiffusion.scorers.aesthetic import LaionHead, load_laion
from addiffusion.scorers.clip import load_tower, tower_of
from addiffusion.scorers.dino import load_timm_dino
from addiffusion.scorers.hps import load_hps
from addiffusion.scorers.pickscore import load_pickscore
from tests.addiffusion.scorers.tiny_scorers import CLIP_NAME, CPU, make_pickscore, register_tiny_clip


@dataclass(frozen=True, slots=True)
class Kit:
    """A scorer's own files, and what loads them."""

    make: Callable[[Path], Path]
    """Writes whole files into a folder; returns the one with the tensors."""
    load: Callable[[Path], object]
    """From that file."""


@pytest.fixture(scope="module", autouse=True)
def _tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_clip(tmp_path_factory.mktemp("open_clip"))


def shipped(part: str, file: str = "model.safetensors") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        shutil.copytree(weights_path(part), folder / part)
        return folder / part / file

    return make


def saved(name: str, build: Callable[[], torch.nn.Module]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save(build().state_dict(), folder / name)
        return folder / name

    return make


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(dict(tensors), path)


def pickscore_folder(folder: Path) -> Path:
    model: Any = make_pickscore()
    model.save_pretrained(folder / "pickscore")
    return folder / "pickscore" / "model.safetensors"


def wide_tower() -> object:
    model = open_clip.create_model(CLIP_NAME)
    tower = tower_of(CLIP_NAME, model, device=CPU)
    tower.width = 768
    return tower


def pretrained(**sections: object) -> ScorersSection:
    return ScorersSection(kind="pretrained").model_copy(update=sections)


KITS = {
    "embedded clip": Kit(shipped("clip", "open_clip_model.safetensors"), lambda path: load_clip(path.parent)),
    "embedded dino": Kit(shipped("dino"), lambda path: load_dino(path.parent)),
    "embedded aesthetic": Kit(shipped("aesthetic"), lambda path: load_aesthetic(path.parent, clip_width=CLIP_WIDTH)),
    "embedded preference": Kit(shipped("preference"), lambda path: load_preference(path.parent)),
    "clip": Kit(
        saved("clip.safetensors", lambda: open_clip.create_model(CLIP_NAME)),
        lambda path: load_tower(pretrained(clip=ClipSection(model=CLIP_NAME, weights=str(path))), CPU),
    ),
    "clip.pt": Kit(
        saved("clip.pt", lambda: open_clip.create_model(CLIP_NAME)),
        lambda path: load_tower(pretrained(clip=ClipSection(model=CLIP_NAME, weights=str(path))), CPU),
    ),
    "aesthetic": Kit(
        saved("aesthetic.pth", LaionHead),
        lambda path: load_laion(pretrained(aesthetic=AestheticSection(weights=str(path))), wide_tower(), CPU),  # pyright: ignore[reportArgumentType]
    ),
    "dino": Kit(
        saved("model.safetensors", lambda: timm.create_model("test_vit", num_classes=0)),
        lambda path: load_timm_dino(pretrained(dino=DinoSection(model="test_vit", weights=str(path))), CPU),
    ),
    "hps": Kit(
        saved("hps.pt", lambda: open_clip.create_model(CLIP_NAME)),
        lambda path: load_hps(pretrained(hps=HpsSection(model=CLIP_NAME, weights=str(path))), CPU),
    ),
    "pickscore": Kit(
        pickscore_folder,
        lambda path: load_pickscore(pretrained(pickscore=PickScoreSection(weights=str(path.parent))), CPU),
    ),
}


def tensors_of(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def first_weight(tensors: Mapping[str, Tensor]) -> str:
    return min(name for name, tensor in tensors.items() if tensor.ndim > 1)


def lacking(path: Path) -> str:
    tensors = tensors_of(path)
    name = first_weight(tensors)
    del tensors[name]
    save(tensors, path)
    return name


def renamed(path: Path) -> str:
    tensors = tensors_of(path)
    name = first_weight(tensors)
    tensors["renamed." + name] = tensors.pop(name)
    save(tensors, path)
    return name


def reshaped(path: Path) -> str:
    tensors = tensors_of(path)
    name = first_weight(tensors)
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    save(tensors, path)
    return name


def cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-100])
    return str(path.parent)


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return str(path.parent)


def pickled(path: Path) -> str:
    path.write_bytes(pickle.dumps(Path("executed")))
    return str(path.parent)


@pytest.mark.parametrize("damage", [lacking, renamed, reshaped, cut, empty, pickled])
@pytest.mark.parametrize("kit", KITS.values(), ids=KITS.keys())
def test_weights_that_do_not_fill_their_model_are_refused(
    kit: Kit, damage: Callable[[Path], str], tmp_path: Path
) -> None:
    """Nothing is left at random numbers, and the sentence names the tensor, or the file that can't be read."""
    path = kit.make(tmp_path)
    kit.load(path)
    words = damage(path)
    with pytest.raises(WeightsError) as refused:
        kit.load(path)
    assert words in refused.value.message
    assert "\n" not in refused.value.message
    assert str(tmp_path) in refused.value.message


def test_positions_of_another_image_size_are_refused(tmp_path: Path) -> None:
    """open_clip would interpolate them without a word: the file is of another model."""
    path = KITS["clip"].make(tmp_path)
    tensors = load_file(path)
    tensors["visual.positional_embedding"] = torch.zeros(5, 32)
    save(tensors, path)
    with pytest.raises(WeightsError, match=r"'visual.positional_embedding' is of shape 5x32, not 17x32"):
        KITS["clip"].load(path)


@pytest.mark.parametrize("damage", ["{", "[]", '{"model_cfg": {}}'])
def test_a_folder_whose_configuration_is_damaged_is_one_sentence(tmp_path: Path, damage: str) -> None:
    """open_clip's folder as well as transformers'."""
    clip = KITS["embedded clip"].make(tmp_path).parent
    section = pretrained(clip=ClipSection(model=str(clip)))
    assert load_tower(section, CPU).width == CLIP_WIDTH
    (clip / "open_clip_config.json").write_text(damage)
    with pytest.raises(WeightsError, match=r"scorers\.clip\.model"):
        load_tower(section, CPU)
    with pytest.raises(WeightsError, match="The CLIP model at"):
        load_clip(clip)
    pickscore = KITS["pickscore"].make(tmp_path)
    (pickscore.parent / "config.json").write_text(damage)
    with pytest.raises(WeightsError, match=r"scorers\.pickscore\.weights"):
        KITS["pickscore"].load(pickscore)


@pytest.mark.parametrize("part", ["dino", "preference"])
@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_configuration_of_the_embedded_scorers_is_one_sentence(
    tmp_path: Path, part: str, damage: str
) -> None:
    """The file is named."""
    kit = KITS[f"embedded {part}"]
    path = kit.make(tmp_path)
    (path.parent / "config.json").write_text(damage)
    with pytest.raises(WeightsError) as refused:
        kit.load(path)
    assert str(path.parent) in refused.value.message


def test_a_name_with_a_quickgelu_twin_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file does not say which activation its weights were trained with; a tag does."""
    config = open_clip.get_model_config(CLIP_NAME)
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("tiny-twin", "tiny-twin-quickgelu"):
        (twins / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(twins)
    path = KITS["clip"].make(tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_tower(pretrained(clip=ClipSection(model="tiny-twin-quickgelu", weights=str(path))), CPU)
        assert not caplog.records
        load_tower(pretrained(clip=ClipSection(model="tiny-twin", weights=str(path))), CPU)
    (record,) = caplog.records
    assert "scorers.clip.model=tiny-twin-quickgelu" in record.getMessage()
