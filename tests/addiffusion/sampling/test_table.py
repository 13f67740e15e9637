"""The solver table against diffusers itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from addiffusion.errors import ConfigError
from addiffusion.sampling.table import SolverTable, build_table

NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PREDICTIONS = ("epsilon", "v_prediction")
SPACINGS = ("leading", "trailing", "linspace")


def make_scheduler(**options: Any) -> DDIMScheduler:
    return DDIMScheduler(**{**NOISE, "clip_sample": False, **options})


def make_table(scheduler: Any, num_steps: int, *, finish_steps: int = 4, r_noise: float = 0.5) -> SolverTable:
    return build_table(scheduler, num_steps, finish_steps=finish_steps, r_noise=r_noise)


def network(z: Tensor, t: float) -> Tensor:
    """Nonlinear in z, so that errors of a step are fed into the next one."""
    return torch.tanh(z.roll(1, -1) * (1.2 - t / 1000)) + 0.5 * z * t / 1000


def apply(table: SolverTable, row: int, z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(z0_pred, z_next) of one row."""
    _, c, d, a, b = table.rows[:, row]
    return float(c) * z + float(d) * u, float(a) * z + float(b) * u


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))


def assert_steps_like_diffusers(scheduler: DDIMScheduler, num_steps: int) -> None:
    """Walk the whole schedule beside the scheduler, compared at every step."""
    table = make_table(scheduler, num_steps)
    scheduler.set_timesteps(num_steps)
    ours = theirs = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert table.timesteps.tolist() == scheduler.timesteps.tolist()
    for step, t in enumerate(scheduler.timesteps):
        expected = scheduler.step(network(theirs, float(t)), t, theirs)
        z0_pred, ours = apply(table, step, ours, network(ours, table.rows[0, step].item()))
        theirs = expected.prev_sample
        assert_same(ours, theirs)
        assert_same(z0_pred, expected.pred_original_sample)


@pytest.mark.parametrize("num_steps", [5, 10, 20, 50])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_step_equals_diffusers(num_steps: int, prediction: str, spacing: str) -> None:
    scheduler = make_scheduler(prediction_type=prediction, timestep_spacing=spacing)
    assert_steps_like_diffusers(scheduler, num_steps)


@given(
    num_steps=st.integers(2, 60),
    prediction=st.sampled_from((*PREDICTIONS, "sample")),
    spacing=st.sampled_from(SPACINGS),
    alpha_one=st.booleans(),
    offset=st.integers(0, 1),
    schedule=st.sampled_from(("linear", "scaled_linear", "squaredcos_cap_v2")),
    trained=st.sampled_from((100, 777, 1000)),
)
@settings(max_examples=20, deadline=None)
def test_every_step_equals_diffusers_for_any_options(
    *, num_steps: int, prediction: str, spacing: str, alpha_one: bool, offset: int, schedule: str, trained: int
) -> None:
    scheduler = make_scheduler(
        num_train_timesteps=trained,
        prediction_type=prediction,
        timestep_spacing=spacing,
        set_alpha_to_one=alpha_one,
        steps_offset=offset,
        beta_schedule=schedule,
    )
    assert_steps_like_diffusers(scheduler, num_steps)


def test_zero_terminal_snr_with_v_prediction() -> None:
    scheduler = make_scheduler(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
    assert_steps_like_diffusers(scheduler, 20)


@given(num_steps=st.integers(2, 50), finish_steps=st.integers(0, 8), prediction=st.sampled_from(PREDICTIONS))
@settings(max_examples=8, deadline=None)
def test_a_finish_starts_after_its_step_and_ends_before_zero(
    num_steps: int, finish_steps: int, prediction: str
) -> None:
    table = make_table(make_scheduler(prediction_type=prediction), num_steps, finish_steps=finish_steps)
    for step in range(num_steps):
        count, start = table.finish_count[step], table.finish_start[step]
        assert count == min(finish_steps, num_steps - 1 - step)
        timesteps = table.rows[0, start : start + count]
        if count:
            first = table.timesteps[step + 1]
            np.testing.assert_allclose(timesteps, first * (1 - np.arange(count) / count), atol=0.5)
            assert timesteps[0] == first
    assert table.dead_row == 2 * num_steps + table.finish_count.sum()
    assert not table.rows[:, table.dead_row].any()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_finish_pass_moves_along_the_line_from_noise_to_its_prediction(prediction: str) -> None:
    """DDIM's own definition (arXiv:2010.02502 Eq. 12): z_next is z0_pred noised with the predicted noise."""
    scheduler = make_scheduler(prediction_type=prediction)
    table = make_table(scheduler, 50, finish_steps=4)
    z, u = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for row in range(table.finish_start[7], table.finish_start[7] + 3):
        t, following = int(table.rows[0, row]), int(table.rows[0, row + 1])
        z0_pred, z_next = apply(table, row, z, u)
        assert_same(z0_pred, scheduler_prediction(scheduler, t, z, u))
        alpha_bar = scheduler.alphas_cumprod[t]
        eps = (z - alpha_bar.sqrt() * z0_pred) / (1 - alpha_bar).sqrt()
        assert_same(z_next, scheduler.add_noise(z0_pred, eps, torch.tensor([following])))


def scheduler_prediction(scheduler: DDIMScheduler, t: int, z: Tensor, u: Tensor) -> Tensor:
    scheduler.set_timesteps(50)
    return scheduler.step(u, t, z).pred_original_sample


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_levels_and_refine_rows(prediction: str) -> None:
    scheduler = make_scheduler(prediction_type=prediction)
    table = make_table(scheduler, 20, r_noise=0.3)
    z, u = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    for step in range(20):
        t = int(table.timesteps[step])
        (row,) = table.refine_row(np.array([step])).tolist()
        refine_t = int(table.rows[0, row])
        assert refine_t == round(0.3 * t)
        assert_same(apply(table, row, z, u)[0], scheduler_prediction(scheduler, refine_t, z, u))
        for levels, level_t in ((table.point_noise, t), (table.refine_noise, refine_t)):
            alpha, sigma = map(float, levels[:, step])
            assert_same(alpha * z + sigma * u, scheduler.add_noise(z, u, torch.tensor([level_t])))


@pytest.mark.parametrize("option", ["clip_sample", "thresholding"])
def test_options_that_break_linearity_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        make_table(make_scheduler(**{option: True}), 10)


def test_other_solvers_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="DPMSolverMultistepScheduler"):
        make_table(DPMSolverMultistepScheduler(**NOISE), 10)


def test_steps_without_a_clean_prediction_are_refused() -> None:
    with pytest.raises(ConfigError, match="prediction_type=epsilon with rescale_betas_zero_snr=True"):
        make_table(make_scheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"), 10)


@pytest.mark.parametrize(("num_steps", "offset", "words"), [(1001, 0, "at most 1000"), (1000, 1, "steps_offset=1")])
def test_schedules_longer_than_the_model_knows_are_refused(num_steps: int, offset: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_table(make_scheduler(steps_offset=offset), num_steps)


def test_the_callers_scheduler_is_left_alone() -> None:
    scheduler = make_scheduler()
    before = dict(scheduler.config), scheduler.alphas_cumprod.dtype, scheduler.num_inference_steps
    make_table(scheduler, 10)
    assert (dict(scheduler.config), scheduler.alphas_cumprod.dtype, scheduler.num_inference_steps) == before
