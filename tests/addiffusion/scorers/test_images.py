"""Preprocessing on the device against the reference libraries' own, in every resize mode."""

from __future__ import annotations

import pytest
import timm
import timm.data
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from timm.data.config import resolve_model_data_config

from addiffusion.scorers.dino import preprocessing_of
from addiffusion.scorers.images import ImageBatch, Preprocessing
from tests.addiffusion.scorers.tiny_scorers import batch_of, pictures, through_pil

SIZES = [(512, 512), (300, 400), (400, 300), (64, 64), (224, 224), (225, 511)]
PIXEL = 1 / 255 / min(Preprocessing(size=1).std)
"""One grey level after normalisation."""


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", SIZES)
def test_open_clip_transforms(size: tuple[int, int], mode: str) -> None:
    images = pictures(*size)
    reference = image_transform_v2(PreprocessCfg(size=224, resize_mode=mode), is_train=False)  # pyright: ignore
    ours = Preprocessing(size=224, resize_mode=mode)(batch_of(images))  # pyright: ignore[reportArgumentType]
    difference = (ours - through_pil(reference, images)).abs()
    assert float(difference.max()) <= 2.01 * PIXEL, "PIL rounds between its two passes, by one level at most twice"
    assert float(difference.mean()) <= 0.1 * PIXEL


@pytest.mark.parametrize("size", SIZES[:3])
def test_timm_transforms(size: tuple[int, int]) -> None:
    images, model = pictures(*size), timm.create_model("test_vit")
    reference = timm.data.create_transform(**resolve_model_data_config(model), is_training=False)
    ours = preprocessing_of(model, None)(batch_of(images))
    difference = (ours - through_pil(reference, images)).abs()
    assert float(difference.max()) <= 2.01 * PIXEL
    assert float(difference.mean()) <= 0.1 * PIXEL


def test_views_are_computed_once_and_resizing_is_shared_between_normalisations() -> None:
    images = batch_of(pictures(64, 64))
    first, again = Preprocessing(size=32), Preprocessing(size=32)
    other = Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert first(images) is again(images)
    resized = [key for key in images._known if isinstance(key, tuple)]  # pyright: ignore[reportPrivateUsage]
    other(images)
    assert [key for key in images._known if isinstance(key, tuple)] == resized  # pyright: ignore[reportPrivateUsage]
    assert not torch.equal(first(images), other(images))


def test_a_view_is_forgotten_with_its_batch() -> None:
    pixels = pictures(8, 8)
    calls: list[int] = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.zeros(1)

    for images in (batch_of(pixels), batch_of(pixels)):
        assert isinstance(images, ImageBatch)
        images.once("view", compute)
        images.once("view", compute)
    assert len(calls) == 2
