"""Masks: what counts as under-attended, the controls, and the blur."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from addiffusion.sampling import refining


def test_a_word_map_takes_the_strongest_word_and_drops_the_rest() -> None:
    maps = torch.tensor([9.0, 1.0, 3.0, 9.0]).view(1, 4, 1, 1) * torch.tensor([[1.0, 2.0]])
    words = torch.tensor([[False, True, True, False], [True, False, False, False]])
    assert refining.word_maps(maps.expand(2, -1, -1, -1), words).tolist() == [[[3.0, 6.0]], [[9.0, 18.0]]]


def test_a_prompt_without_words_is_attended_to_nowhere_and_masked_nowhere() -> None:
    attention = refining.word_maps(torch.rand(2, 3, 8, 8), torch.tensor([[False] * 3, [True] * 3])).numpy()
    assert not attention[0].any()
    assert refining.map_entropies(attention)[0] == pytest.approx(0.0, abs=1e-6)
    masked = refining.attention_masks(attention, tau=0.5, sigma_blur=3.0)
    assert not masked[0].any()
    assert masked[1].any()


def test_entropy_runs_from_one_pixel_to_all_of_them() -> None:
    spike = np.zeros((4, 4), np.float32)
    spike[1, 2] = 7.0
    halves = np.repeat(np.float32([1, 0]), 8).reshape(4, 4)
    entropies = refining.map_entropies(np.stack([spike, np.full((4, 4), 0.3, np.float32), halves]))
    assert entropies == pytest.approx([0.0, 1.0, math.log(8) / math.log(16)], abs=1e-6)


@given(tau=st.floats(0.05, 0.95), seed=st.integers(0, 2**32 - 1), levels=st.sampled_from((3, 2**24)))
@settings(max_examples=30, deadline=None)
def test_the_mask_is_what_lies_below_the_interpolated_quantile(tau: float, seed: int, levels: int) -> None:
    attention = np.random.default_rng(seed).integers(levels, size=(2, 16, 16)).astype(np.float32)
    before = attention.copy()
    sharp = refining.attention_masks(attention, tau=tau, sigma_blur=0.2)
    for one, mask in zip(before, sharp, strict=True):
        np.testing.assert_array_equal(mask > 0.5, one < np.quantile(one, tau))
    np.testing.assert_array_equal(attention, before)


@given(
    height=st.sampled_from((8, 16, 24, 64)),
    width=st.sampled_from((8, 16, 64)),
    sigma=st.floats(0.5, 6.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_blur_is_scipys_for_each_mask_alone(height: int, width: int, sigma: float, seed: int) -> None:
    sharp = np.random.default_rng(seed).random((3, height, width)) < 0.5
    scaled = sigma * math.sqrt(height * width) / 64
    expected = [
        gaussian_filter(one.astype(np.float32), scaled, mode="nearest", radius=math.ceil(3 * scaled)).clip(0, 1)
        for one in sharp
    ]
    blurred = refining.soften(sharp, sigma_blur=sigma)
    assert blurred.dtype == np.float32
    # Rounded at the same places; sums in double precision may come in another order.
    np.testing.assert_allclose(blurred, np.stack(expected), rtol=0, atol=1.2e-7)
    np.testing.assert_array_equal(blurred[1:2], refining.soften(sharp[1:2], sigma_blur=sigma))


def test_blur_keeps_a_constant_up_to_the_border() -> None:
    for value in (0.0, 1.0):
        constant = np.full((1, 8, 16), value, np.float32)
        np.testing.assert_allclose(refining.soften(constant, sigma_blur=3.0), constant, rtol=1e-5)


def test_blur_is_a_gaussian_scaled_with_the_latent() -> None:
    spot = np.zeros((1, 16, 16), np.float32)
    spot[0, 8, 8] = 1.0
    blurred = refining.soften(spot, sigma_blur=3.0)
    distances = np.arange(16) - 8.0
    variance = (blurred[0].sum(0) * distances**2).sum() / blurred.sum()
    assert variance**0.5 == pytest.approx(0.75, abs=0.02)
    assert blurred.sum() == pytest.approx(1.0, abs=1e-5)


def test_grid_covers_half_the_image_in_cells() -> None:
    mask = refining.grid_mask(16, 24, sigma_blur=0.2)
    assert mask.shape == (1, 16, 24)
    assert mask.mean() == pytest.approx(0.5, abs=1e-3)
    assert mask[0, 0, 0] < 0.5 < mask[0, 0, 3]


def test_a_random_mask_is_a_function_of_its_generator_and_covers_tau() -> None:
    first, again, other = refining.random_masks(
        16,
        16,
        tau=0.25,
        sigma_blur=0.2,
        generators=[torch.Generator().manual_seed(seed) for seed in (3, 3, 4)],
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.mean() == pytest.approx(0.25, abs=1e-2)
