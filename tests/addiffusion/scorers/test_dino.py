"""The DINO adapter against timm itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import timm.data
import torch
from safetensors.torch import save_file
from timm.data.config import resolve_model_data_config
from torch.nn.functional import normalize

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import DinoSection
from addiffusion.errors import ConfigError, WeightsError
from addiffusion.scorers.dino import load_timm_dino
from tests.addiffusion.scorers.tiny_scorers import CPU, batch_of, pictures, randomised, through_pil

MODEL = "test_vit"


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    return randomised(timm.create_model(MODEL, num_classes=0))


@pytest.fixture(scope="module")
def weights(reference: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dino") / "model.safetensors"
    save_file(reference.state_dict(), path)
    return path


def section_for(weights: Path, image_size: int | None = None, model: str = MODEL) -> ScorersSection:
    return ScorersSection(kind="pretrained", dino=DinoSection(model=model, weights=str(weights), image_size=image_size))


def test_features_equal_timms(reference: torch.nn.Module, weights: Path) -> None:
    images = pictures(200, 150)
    transform = timm.data.create_transform(**resolve_model_data_config(reference), is_training=False)
    dino = load_timm_dino(section_for(weights), CPU)
    with torch.inference_mode():
        theirs = normalize(reference(through_pil(transform, images)), dim=1)
    torch.testing.assert_close(dino.embed_images(batch_of(images)), theirs, rtol=0, atol=5e-3)
    assert dino.width == theirs.shape[1]


def test_similarity_is_one_for_equal_images_and_less_for_others(weights: Path) -> None:
    dino, images = load_timm_dino(section_for(weights), CPU), pictures(96, 96)
    same = dino.similarity(batch_of(images), batch_of(images))
    others = dino.similarity(batch_of(images), batch_of(images[[1, 2, 0]]))
    torch.testing.assert_close(same, torch.ones(3), rtol=0, atol=1e-5)
    assert bool((others < same - 1e-3).all())


def test_another_image_size_fits_the_same_weights(weights: Path) -> None:
    dino = load_timm_dino(section_for(weights, image_size=96), CPU)
    assert dino.embed_images(batch_of(pictures(96, 96))).shape == (3, dino.width)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorers\.dino\.model=vit_nothing is no timm model"):
        load_timm_dino(section_for(tmp_path, model="vit_nothing"), CPU)
    with pytest.raises(WeightsError, match=r"does not give model\.safetensors.*hub repository timm/test_vit"):
        load_timm_dino(section_for(tmp_path), CPU)
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"scorers\.dino\.weights names, can't be loaded"):
        load_timm_dino(section_for(tmp_path), CPU)
