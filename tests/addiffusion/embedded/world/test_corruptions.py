"""Corruptions are graded, leave severity 0 alone and are a pure function of their generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from addiffusion.embedded.world.corruptions import Corruption, corrupt, gaussian_blur, random_kinds
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.pixels import to_network, to_pixels
from addiffusion.seeds import generator

COUNT = 24


@pytest.fixture(scope="module")
def images() -> Tensor:
    return to_network(scene_batch(5, 0, COUNT).images)


def spoil(images: Tensor, kind: Corruption, severity: float) -> Tensor:
    kinds = torch.full((len(images),), list(Corruption).index(kind))
    return corrupt(images, torch.full((len(images),), severity), kinds, generator("tests", kind.value))


@pytest.mark.parametrize("kind", list(Corruption))
def test_severity_zero_changes_nothing(images: Tensor, kind: Corruption) -> None:
    assert torch.equal(spoil(images, kind, 0.0), images)


@pytest.mark.parametrize("kind", list(Corruption))
def test_distance_to_the_original_grows_with_severity(images: Tensor, kind: Corruption) -> None:
    errors = [float((spoil(images, kind, severity) - images).pow(2).mean()) for severity in (0.1, 0.3, 0.6, 1.0)]
    assert errors == sorted(errors)
    assert errors[0] > 0


@pytest.mark.parametrize("kind", list(Corruption))
def test_results_stay_images(images: Tensor, kind: Corruption) -> None:
    spoiled = spoil(images, kind, 1.0)
    assert spoiled.shape == images.shape
    assert bool(torch.isfinite(spoiled).all())
    assert float(spoiled.abs().max()) <= 1.0


def test_same_generator_same_corruption(images: Tensor) -> None:
    severity = torch.linspace(0, 1, COUNT)
    kinds = random_kinds(COUNT, generator("kinds"))
    first = corrupt(images, severity, kinds, generator("spoil"))
    assert torch.equal(first, corrupt(images, severity, kinds, generator("spoil")))
    assert not torch.equal(first, corrupt(images, severity, kinds, generator("other")))


def test_every_kind_is_drawn() -> None:
    assert set(random_kinds(200, generator("kinds")).tolist()) == set(range(len(Corruption)))


def test_blur_keeps_a_flat_image_and_takes_one_sigma_per_image(images: Tensor) -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, torch.tensor([4.0])), flat)
    both = gaussian_blur(images[:2], torch.tensor([0.0, 3.0]))
    torch.testing.assert_close(both[0], images[0], atol=1e-5, rtol=0)
    assert float((both[1] - images[1]).abs().mean()) > 0.01


def test_blur_of_a_point_is_a_gaussian() -> None:
    point = torch.zeros(1, 3, 65, 65)
    point[..., 32, 32] = 1.0
    sigma = 2.5
    offsets = torch.arange(65) - 32.0
    bell = torch.exp(-0.5 * (offsets / sigma) ** 2)
    expected = bell[:, None] * bell[None, :] / bell.sum() ** 2
    torch.testing.assert_close(gaussian_blur(point, torch.tensor([sigma]))[0, 0], expected, atol=1e-5, rtol=1e-3)


def test_pixels_survive_the_way_to_network_space_and_back() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(to_pixels(to_network(pixels)), pixels)
