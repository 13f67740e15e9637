from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from addiffusion.backbones.base import PromptEmbedding
from addiffusion.config import ObservationSection
from addiffusion.errors import ContractError
from addiffusion.observation.latent import Convergence, LatentObservation, prompt_vector
from addiffusion.observation.layout import PROGRESS_NAMES
from addiffusion.observation.scalars import sinusoid
from tests.addiffusion.observation.slot_info import INFO

MIDDLE, TEXT = np.array([3, 0, 4], np.float32), np.array([0, 2], np.float32)


def _observation() -> LatentObservation:
    return LatentObservation(ObservationSection(timestep_width=16), middle_width=3, text_width=2, num_steps=50)


def _row(middle: NDArray[np.float32] = MIDDLE, c_nfe: float = 0.01) -> NDArray[np.float32]:
    return _rows(_observation(), middle, c_nfe)


def _rows(observation: LatentObservation, middle: NDArray[np.float32], c_nfe: float) -> NDArray[np.float32]:
    text, statistics = observation.scaled(TEXT[None]), [[-1.0, 0.9, 1.1, 0.8]]
    rows = observation.rows([INFO], middle=middle[None], convergence=statistics, text=text, prices=[c_nfe])
    return rows[0]


def test_slices_hold_what_their_names_say() -> None:
    phi, layout = _row(c_nfe=0.1), _observation().layout
    assert str(layout) == "middle 3 | text 2 | timestep 16 | convergence 4 | progress 4 = 29"
    norm = math.sqrt(8)
    np.testing.assert_allclose(phi[layout.slice("middle")], [0.6 * norm, 0, 0.8 * norm], rtol=1e-6)
    np.testing.assert_allclose(phi[layout.slice("text")], [0, norm], rtol=1e-6)
    np.testing.assert_array_equal(phi[layout.slice("timestep")], sinusoid(781.0, 16))
    np.testing.assert_allclose(phi[layout.slice("convergence")], [-1.0, 0.9, 1.1, 0.8], rtol=1e-6)
    progress = dict(zip(PROGRESS_NAMES, phi[layout.slice("progress")].tolist(), strict=True))
    assert progress == pytest.approx({"step_ratio": 0.2, "nfe_ratio": 0.24, "log_price": 4.0, "attention_entropy": 0.5})
    assert phi.dtype == np.float32


def test_the_setting_is_a_slice_of_its_own_where_it_is_asked_for() -> None:
    """Everything else stays what and, from the end, where it was."""
    section = ObservationSection(timestep_width=16, setting=True)
    seeing = LatentObservation(section, middle_width=3, text_width=2, num_steps=50)
    phi = _rows(seeing, MIDDLE, 0.1)
    place = seeing.layout.slice("setting")
    assert str(seeing.layout) == "middle 3 | text 2 | timestep 16 | convergence 4 | setting 4 | progress 4 = 33"
    np.testing.assert_allclose(phi[place], [0.4, -1, 1, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(np.delete(phi, place), _row(c_nfe=0.1))
    assert phi[seeing.layout.price_column] == _row(c_nfe=0.1)[_observation().layout.price_column]


@pytest.mark.parametrize("width", [3, 96, 1280, 3072])
def test_a_decision_has_the_bits_it_has_alone(width: int) -> None:
    """Feature slices are as long as the timestep's, in double precision until the factor is known."""
    section, draws = ObservationSection(timestep_width=16), np.random.default_rng(width)
    observation = LatentObservation(section, middle_width=width, text_width=width, num_steps=50)
    middle, text = draws.normal(size=(2, 5, width)).astype(np.float32)
    moved, prices = draws.random((5, 4)).tolist(), [0.01 * (n + 1) for n in range(5)]
    infos = [replace(INFO, step=n, timestep=900.0 - n) for n in range(5)]
    together = observation.rows(infos, middle=middle, convergence=moved, text=text, prices=prices)
    for n, row in enumerate(together):
        part = slice(n, n + 1)
        alone = observation.rows(
            infos[part], middle=middle[part], convergence=moved[part], text=text[part], prices=prices[part]
        )
        np.testing.assert_array_equal(row, alone[0])
        length = math.sqrt(float((middle[n].astype(np.float64) ** 2).sum()) + 1e-12)
        np.testing.assert_array_equal(
            row[observation.layout.slice("middle")], middle[n] * np.float32(math.sqrt(8) / length)
        )


def test_features_of_nothing_stay_finite() -> None:
    assert np.isfinite(_row(np.zeros(3, np.float32))).all()


def test_features_of_another_width_are_a_contract_error() -> None:
    with pytest.raises(ContractError, match="'middle' of the observation is 3 wide but was given shape"):
        _row(np.zeros(4, np.float32))


def test_a_prompts_vector_is_the_pooled_one_or_the_mean_of_its_words() -> None:
    hidden, keep = torch.arange(6.0).view(3, 2), torch.tensor([False, True, True])
    plain = PromptEmbedding(hidden=hidden, keep=keep)
    np.testing.assert_array_equal(prompt_vector(plain), [3, 4])
    pooled = PromptEmbedding(hidden=hidden, keep=keep, pooled=torch.ones(5))
    np.testing.assert_array_equal(prompt_vector(pooled), np.ones(5))
    empty = PromptEmbedding(hidden=hidden, keep=torch.zeros(3, dtype=torch.bool))
    np.testing.assert_array_equal(prompt_vector(empty), [0, 0])


def test_convergence_tells_how_far_predictions_moved() -> None:
    now = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    before = now.clone()
    before[1] *= 0.5
    still, moved = Convergence()(now, before)
    assert still[:2] == pytest.approx([-4.0, 1.0], abs=1e-6)
    assert moved[:2] == pytest.approx([math.log10(0.5), 1.0], abs=1e-6)
    assert still[2:] == pytest.approx([now[0].std().item(), now[0].abs().mean().item()], rel=1e-5)


def test_a_slots_statistics_are_the_same_in_any_slot() -> None:
    now, before = torch.randn(2, 5, 4, 7, 9, generator=torch.Generator().manual_seed(1)).unbind()
    order = [3, 0, 4, 1, 2]
    convergence = Convergence()
    in_order = convergence(now, before)
    assert convergence(now[order], before[order]) == [in_order[slot] for slot in order]


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(0, 2))
def test_convergence_is_what_torch_says(seed: int, scale: float, step: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    before = scale * torch.randn(3, 4, 8, 8, generator=stream)
    now = before + step * scale * torch.randn(3, 4, 8, 8, generator=stream)
    found = Convergence()(now, before)
    flat, past = now.double().flatten(1), before.double().flatten(1)
    change = ((flat - past).norm(dim=1) / flat.norm(dim=1)).clamp_min(1e-4).log10()
    expected = [change, torch.cosine_similarity(flat, past), flat.std(1), flat.abs().mean(1)]
    np.testing.assert_allclose(found, torch.stack(expected, 1).numpy(), rtol=1e-4, atol=1e-5)
