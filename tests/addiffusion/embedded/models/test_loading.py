"""Networks of the embedded world are taken only where their files fill them exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from addiffusion.assets import weights_path
from addiffusion.embedded.making.part import TrainingContext
from addiffusion.embedded.making.text_training import load_text_encoder
from addiffusion.embedded.models.autoencoder import load_autoencoder
from addiffusion.embedded.models.samples import SceneSampler
from addiffusion.embedded.models.tokenizer import load_tokenizer
from addiffusion.errors import WeightsError

LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "autoencoder": ("vae", lambda folder: load_autoencoder(folder / "vae")),
    "first lessons": ("text_encoder", lambda folder: load_text_encoder(_after_lessons(folder))),
    "pipeline's unet": ("unet", SceneSampler.from_folder),
    "pipeline's vae": ("vae", SceneSampler.from_folder),
    "pipeline's text encoder": ("text_encoder", SceneSampler.from_folder),
}


def _after_lessons(folder: Path) -> TrainingContext:
    context = TrainingContext(out=folder.parent, work=folder.parent / "work", seed=0, device=torch.device("cpu"))
    shutil.copytree(folder / "text_encoder", context.folder("text") / "text_encoder")
    return context


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights_path("pipeline"), tmp_path / "pipeline"))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", ["missing", "renamed", "cut off"])
def test_what_a_file_does_not_fill_is_not_left_at_random_numbers(folder: Path, loader: str, fault: str) -> None:
    part, load = LOADERS[loader]
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    name = sorted(tensors)[1]
    tensor = tensors.pop(name)
    save_file(tensors if fault == "missing" else tensors | {"nowhere.weight": tensor}, file, {"format": "pt"})
    words = [f"tensor {name!r} is missing"]
    if fault == "renamed":
        words.append("tensor 'nowhere.weight' has no place in the model")
    if fault == "cut off":
        file.write_bytes(file.read_bytes()[:1000])
        words = ["can't be loaded"]
    with pytest.raises(WeightsError) as caught:
        load(folder)
    message = caught.value.message
    assert [word for word in words if word not in message] == []
    assert message.isprintable()
    assert message.endswith(".")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}'])
def test_a_damaged_tokenizer_is_a_sentence(folder: Path, content: str) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer can't be loaded .*; delete it and train the part `tokenizer`"):
        load_tokenizer(folder)
