from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from addiffusion.config import Config, ObservationSection
from addiffusion.errors import ContractError
from addiffusion.observation.clip import UNIT_LIMIT, ClipObservation, ImageScores
from addiffusion.observation.layout import QUALITY_NAMES
from addiffusion.observation.scalars import sinusoid
from addiffusion.records import ScoreReply
from addiffusion.sampling.slot import SlotInfo
from tests.addiffusion.observation.slot_info import INFO

SCALES = Config().reward.scales
WIDTH = 6


def _unit(*values: float) -> NDArray[np.float32]:
    vector = np.zeros(WIDTH, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector).astype(np.float32)


TEXT = _unit(0, 1)
FIRST = ImageScores(scores=np.array([0.25, 5.0, 0.1], np.float32), clip_embedding=_unit(1), dino_embedding=_unit(1, 0))
SECOND = ImageScores(
    scores=np.array([0.30, 5.6, -0.1], np.float32), clip_embedding=_unit(1, 1), dino_embedding=_unit(0.6, 0.8)
)


def _observation(clip_width: int = WIDTH) -> ClipObservation:
    return ClipObservation(ObservationSection(timestep_width=16), clip_width=clip_width, scales=SCALES, num_steps=50)


def _quality(
    now: ImageScores, before: ImageScores | None, info: SlotInfo = INFO, c_nfe: float = 0.01
) -> dict[str, float]:
    observation = _observation()
    phi = observation.row(info, now=now, before=before, text_embedding=TEXT, c_nfe=c_nfe)
    return dict(zip(QUALITY_NAMES, phi[observation.layout.slice("quality")].tolist(), strict=True))


def test_first_decision_has_no_change() -> None:
    quality = _quality(FIRST, None)
    assert quality == pytest.approx(
        {
            "clip": 1.0,
            "aesthetic_delta": 0.0,
            "image_reward_delta": 0.0,
            "dino_similarity": 1.0,
            "step_ratio": 0.2,
            "nfe_ratio": 0.24,
            "log_price": 0.0,
            "attention_entropy": 0.5,
        }
    )


def test_changes_are_in_units_of_the_reward_scales() -> None:
    quality = _quality(SECOND, FIRST)
    assert quality["clip"] == pytest.approx(1.2)
    assert quality["aesthetic_delta"] == pytest.approx(2.0, rel=1e-5)
    assert quality["image_reward_delta"] == pytest.approx(-1.0, rel=1e-5)
    assert quality["dino_similarity"] == pytest.approx(1 - (1 - 0.6) / SCALES.dino, rel=1e-5)


@pytest.mark.parametrize(("c_nfe", "expected"), [(0.0, -8.0), (0.001, -4.0), (0.01, 0.0), (0.1, 4.0)])
def test_price_enters_as_its_logarithm_and_zero_stays_finite(c_nfe: float, expected: float) -> None:
    assert _quality(FIRST, None, c_nfe=c_nfe)["log_price"] == pytest.approx(expected)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=6, max_size=6))
@settings(deadline=None, max_examples=50)
def test_jumps_are_clipped(values: list[float]) -> None:
    before = replace(FIRST, scores=np.array(values[:3], np.float32))
    quality = _quality(replace(SECOND, scores=np.array(values[3:], np.float32)), before)
    changes = [quality[name] for name in ("aesthetic_delta", "image_reward_delta", "dino_similarity")]
    assert max(map(abs, changes)) <= UNIT_LIMIT


@pytest.mark.parametrize("clip_width", [6, 64, 768])
def test_slices_weigh_the_same_for_any_clip_width(clip_width: int) -> None:
    embedding = np.random.default_rng(0).standard_normal(clip_width).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    observation = _observation(clip_width)
    phi = observation.row(
        INFO, now=replace(FIRST, clip_embedding=embedding), before=None, text_embedding=embedding, c_nfe=0.01
    )
    norms = [np.linalg.norm(phi[observation.layout.slice(name)]) for name in ("clip_image", "clip_text", "timestep")]
    assert norms == pytest.approx([math.sqrt(8)] * 3, rel=1e-5)


def test_embeddings_land_in_their_slices() -> None:
    observation = _observation()
    phi = observation.row(INFO, now=FIRST, before=None, text_embedding=TEXT, c_nfe=0.01)
    assert phi.dtype == np.float32
    assert phi.shape == (observation.layout.width,)
    assert phi[observation.layout.slice("clip_image")].argmax() == 0
    assert phi[observation.layout.slice("clip_text")].argmax() == 1
    np.testing.assert_array_equal(phi[observation.layout.slice("timestep")], sinusoid(781.0, 16))


def test_wrong_embedding_width_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match="'clip_text' of the observation is 6 wide"):
        _observation().row(INFO, now=FIRST, before=None, text_embedding=np.ones(5, np.float32), c_nfe=0.01)


def test_sinusoid_follows_the_paper() -> None:
    # arXiv:1706.03762: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = cos of the same angle.
    width, position = 8, 37.0
    expected = [
        function(position / 10_000 ** (2 * pair / width))
        for pair in range(width // 2)
        for function in (math.sin, math.cos)
    ]
    np.testing.assert_allclose(sinusoid(position, width), expected, atol=1e-7)


def test_judged_copies_its_row() -> None:
    reply = ScoreReply(
        names=("clip", "aesthetic", "image_reward"),
        values=np.arange(6, dtype=np.float32).reshape(2, 3),
        clip_embedding=np.ones((2, 4), np.float32),
        dino_embedding=np.ones((2, 5), np.float32),
        errors=(None, None),
    )
    judged = ImageScores.of(reply, 1)
    reply.values[:] = 0
    np.testing.assert_array_equal(judged.scores, [3, 4, 5])
