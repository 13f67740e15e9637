"""Masks: what counts as under-attended, the controls, and the blur."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.sampling import masks


def test_word_map_takes_the_strongest_word_and_drops_the_rest() -> None:
    maps = torch.tensor([9.0, 1.0, 3.0, 9.0]).view(4, 1, 1) * torch.tensor([[1.0, 2.0]])
    assert masks.word_map(maps, torch.tensor([1, 2])).tolist() == [[3.0, 6.0]]


def test_a_prompt_without_words_is_attended_to_nowhere_and_masked_nowhere() -> None:
    attention = masks.word_map(torch.rand(3, 8, 8), torch.zeros(0, dtype=torch.int64)).numpy()
    assert not attention.any()
    assert masks.map_entropy(attention) == pytest.approx(0.0, abs=1e-6)
    assert not masks.attention_mask(attention, tau=0.5, sigma_blur=3.0).any()


def test_entropy_runs_from_one_pixel_to_all_of_them() -> None:
    spike = np.zeros((4, 4), np.float32)
    spike[1, 2] = 7.0
    halves = np.repeat(np.float32([1, 0]), 8).reshape(4, 4)
    assert masks.map_entropy(spike) == pytest.approx(0.0, abs=1e-6)
    assert masks.map_entropy(np.full((4, 4), 0.3, np.float32)) == pytest.approx(1.0)
    assert masks.map_entropy(halves) == pytest.approx(math.log(8) / math.log(16))


@given(tau=st.floats(0.05, 0.95), seed=st.integers(0, 2**32 - 1), levels=st.sampled_from((3, 2**24)))
@settings(max_examples=30, deadline=None)
def test_the_mask_is_what_lies_below_the_interpolated_quantile(tau: float, seed: int, levels: int) -> None:
    attention = np.random.default_rng(seed).integers(levels, size=(16, 16)).astype(np.float32)
    sharp = masks.attention_mask(attention, tau=tau, sigma_blur=0.2)
    np.testing.assert_array_equal(sharp > 0.5, attention < np.quantile(attention, tau))


@given(height=st.sampled_from((8, 16, 24)), width=st.sampled_from((8, 16)), sigma=st.floats(0.5, 6.0))
@settings(max_examples=15, deadline=None)
def test_blur_keeps_a_constant_up_to_the_border_and_stays_in_range(height: int, width: int, sigma: float) -> None:
    for value in (0.0, 1.0):
        constant = np.full((height, width), value, np.float32)
        np.testing.assert_allclose(masks.soften(constant, sigma_blur=sigma), constant, rtol=1e-5)
    noisy = masks.soften(np.random.default_rng(height).random((height, width)) < 0.5, sigma_blur=sigma)
    assert noisy.dtype == np.float32
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_blur_is_a_gaussian_scaled_with_the_latent() -> None:
    spot = np.zeros((16, 16), np.float32)
    spot[8, 8] = 1.0
    blurred = masks.soften(spot, sigma_blur=3.0)
    distances = np.arange(16) - 8.0
    variance = (blurred.sum(0) * distances**2).sum() / blurred.sum()
    assert variance**0.5 == pytest.approx(0.75, abs=0.02)
    assert blurred.sum() == pytest.approx(1.0, abs=1e-5)


def test_grid_covers_half_the_image_in_cells() -> None:
    mask = masks.grid_mask(16, 24, sigma_blur=0.2)
    assert mask.shape == (16, 24)
    assert mask.mean() == pytest.approx(0.5, abs=1e-3)
    assert mask[0, 0] < 0.5 < mask[0, 3]


def test_random_mask_is_a_function_of_its_generator_and_covers_tau() -> None:
    first, again, other = (
        masks.random_mask(16, 16, tau=0.25, sigma_blur=0.2, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.mean() == pytest.approx(0.25, abs=1e-2)
