"""The solver table against diffusers itself, for every solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    HeunDiscreteScheduler,
    TCDScheduler,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from addiffusion.errors import ConfigError
from tests.addiffusion.sampling.solver_runs import (
    NOISE,
    SOLVERS,
    SchedulerRun,
    TableRun,
    assert_same,
    assert_steps_like_diffusers,
    latent,
    make_scheduler,
    make_table,
    network,
)

SPACINGS = ("leading", "trailing", "linspace")
KARRAS = ("dpm++2m", "dpm++3m", "euler", "unipc2", "unipc3")
ZERO_SNR = ("ddim", "dpm++2m", "dpm++3m", "euler", "unipc2", "unipc3", "euler_ancestral")


@pytest.mark.parametrize("solver", ZERO_SNR)
def test_zero_terminal_snr_with_v_prediction(solver: str) -> None:
    """The embedded model's own noise: nothing may divide by the last alpha_bar, which is 0."""
    options = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    assert_steps_like_diffusers(solver, make_scheduler(solver, **options), 20)


@pytest.mark.parametrize("solver", ZERO_SNR)
@pytest.mark.parametrize("finish", ["ddim", "dpm++2m"])
def test_refines_and_finishes_are_finite_with_zero_terminal_snr(solver: str, finish: str) -> None:
    """Also from the first step, whose noise level is infinite."""
    options = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    table = make_table(make_scheduler(solver, **options), 20, finish_steps=4, finish_solver=finish)
    assert table.timesteps[0] == 999
    for values in (table.rows, table.point_noise, table.refine_noise):
        assert np.isfinite(values).all()
    for step in (0, 9):
        run = TableRun(table, latent() * table.init_noise_sigma, row=int(table.entry_row[step]))
        run.step()
        run.row = int(table.finish_start[step])
        assert all(run.step().isfinite().all() for _ in range(4))


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    solver = draw(st.sampled_from([name for name in SOLVERS if name not in {"flow_euler", "lcm"}]))
    predictions = ("epsilon", "v_prediction")
    options: dict[str, Any] = {
        "prediction_type": draw(
            st.sampled_from(predictions if "euler" in solver or solver == "pndm" else (*predictions, "sample"))
        ),
        "timestep_spacing": draw(st.sampled_from(SPACINGS)),
        "steps_offset": draw(st.integers(0, 1)),
        "beta_schedule": draw(st.sampled_from(("linear", "scaled_linear"))),
        "num_train_timesteps": draw(st.sampled_from((100, 1000))),
    }
    if solver in KARRAS and draw(st.booleans()):
        options["use_karras_sigmas"] = True
    return solver, options


@given(configuration=configurations(), num_steps=st.integers(2, 40), data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_step_equals_diffusers_for_any_options(
    configuration: tuple[str, dict[str, Any]], num_steps: int, data: st.DataObject
) -> None:
    solver, options = configuration
    scheduler = make_scheduler(solver, **options)
    begin = data.draw(st.integers(0, num_steps - 1)) if solver not in {"pndm", "euler_ancestral"} else 0
    try:
        make_table(scheduler, num_steps)
    except ConfigError:
        assume(False)
    assert_steps_like_diffusers(solver, scheduler, num_steps, begin=begin)


@given(
    shift=st.floats(0.5, 6.0),
    spacing=st.sampled_from((None, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")),
    terminal=st.sampled_from((None, 0.1)),
    num_steps=st.integers(2, 30),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_every_step_of_a_flow_equals_diffusers_for_any_options(
    shift: float, spacing: str | None, terminal: float | None, num_steps: int, data: st.DataObject
) -> None:
    options: dict[str, Any] = {} if spacing is None else {spacing: True}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, shift_terminal=terminal, **options)
    begin = data.draw(st.integers(0, num_steps - 1))
    assert_steps_like_diffusers("flow_euler", scheduler, num_steps, begin=begin)


@pytest.mark.parametrize("begin", [2, 7])
def test_pndm_without_history_goes_on_with_two_steps(begin: int) -> None:
    """diffusers' own PNDM would do its first point twice; the schedule of an episode has no room for that."""
    scheduler = make_scheduler("pndm")
    table, theirs, z = make_table(scheduler, 10), SchedulerRun(scheduler, 10, begin=begin), latent()
    ours = TableRun(table, z, row=int(table.entry_row[begin]))
    for t in theirs.timesteps[:-1]:
        ours.step()
        z, _ = theirs.step(z, t)
        theirs.scheduler.counter = max(theirs.scheduler.counter, 2)
        assert_same(ours.z, z)


# ---------------------------------------------------------------- finishes


@pytest.mark.parametrize("base", ["ddim", "dpm++2m", "unipc2", "pndm"])
@pytest.mark.parametrize("finish", ["ddim", "dpm++2m"])
def test_a_finish_is_diffusers_on_a_respaced_schedule(base: str, finish: str) -> None:
    """Order 2 knows the prediction of the stopped step, so its first pass is a two-step one already."""
    scheduler = make_scheduler(base, prediction_type="v_prediction")
    table = make_table(scheduler, 20, finish_steps=4, finish_solver=finish)
    ours = TableRun(table, latent())
    for _ in range(8):
        z0_pred = ours.step()
    step = 7
    ours.row = int(table.finish_start[step])
    order = 1 if finish == "ddim" else 2
    theirs = DPMSolverMultistepScheduler(**NOISE, prediction_type="v_prediction", solver_order=order)
    start = int(table.timesteps[step + 1])
    theirs.set_timesteps(
        timesteps=[int(table.timesteps[step]), start, *(round(start * (1 - j / 4)) for j in (1, 2, 3))]
    )
    theirs.model_outputs[-1] = z0_pred
    theirs.lower_order_nums = 1
    theirs.set_begin_index(1)
    z = ours.z.clone()
    for t in theirs.timesteps[1:]:
        assert float(table.rows[0, ours.row]) == float(t)
        result = ours.step()
        z = theirs.step(network(z, float(t)), t, z).prev_sample
        assert_same(result, theirs.model_outputs[-1])
    assert_same(result, z)


def test_a_first_order_finish_from_a_variance_exploding_latent_is_ddims() -> None:
    """Euler's method is DDIM in other coordinates: the finish is the same, from the same latent in its own scale."""
    exploding, preserving = (
        make_table(make_scheduler(solver, timestep_spacing="trailing"), 10, finish_steps=4)
        for solver in ("euler", "ddim")
    )
    z = latent()
    row = int(exploding.finish_start[3])
    ours = TableRun(exploding, z / float(exploding.rows[1, row]), row=row)
    theirs = TableRun(preserving, z, row=int(preserving.finish_start[3]))
    for _ in range(4):
        assert_same(ours.step(), theirs.step())


def test_a_finish_on_a_flow_is_eulers_method() -> None:
    table = make_table(make_scheduler("flow_euler"), 10, finish_steps=4)
    ours, z = TableRun(table, latent(), row=int(table.finish_start[2])), latent()
    start = float(table.point_noise[1, 3])
    for number in range(4):
        share, following = (start * (1 - j / 4) for j in (number, number + 1))
        u = network(z, 1000 * share)
        assert_same(ours.step(), z - share * u)
        z = z + (following - share) * u


@given(num_steps=st.integers(2, 30), finish_steps=st.integers(0, 8), solver=st.sampled_from(("ddim", "dpm++2m")))
@settings(max_examples=8, deadline=None)
def test_a_finish_starts_after_its_step_and_ends_before_zero(num_steps: int, finish_steps: int, solver: str) -> None:
    table = make_table(make_scheduler("ddim"), num_steps, finish_steps=finish_steps, finish_solver=solver)
    for step in range(num_steps):
        count, start = int(table.finish_count[step]), int(table.finish_start[step])
        assert count == min(finish_steps, num_steps - 1 - step)
        if count:
            timesteps = table.rows[0, start : start + count]
            first = float(table.timesteps[step + 1])
            assert timesteps.tolist() == pytest.approx([first * (1 - j / count) for j in range(count)], abs=0.5)
            assert timesteps[0] == first
            assert table.next_row[start : start + count].tolist() == [
                *range(start + 1, start + count),
                start + count - 1,
            ]
    assert not table.rows[:, -1].any(), "that of slots with nothing to do"


# ---------------------------------------------------------------- refines


@pytest.mark.parametrize("solver", ["ddim", "euler", "dpm++3m", "pndm", "unipc2"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_levels_and_refine_rows(solver: str, prediction: str) -> None:
    scheduler = make_scheduler(solver, prediction_type=prediction)
    reference = make_scheduler("ddim", prediction_type=prediction)
    reference.set_timesteps(20)
    table = make_table(scheduler, 20, r_noise=0.3)
    z, u = latent(1), latent(2)
    scheduler.set_timesteps(20)
    for step in (0, 3, 19):
        row = int(table.refine_row[step])
        t = int(table.rows[0, row])
        assert t == round(0.3 * float(table.timesteps[step]))
        c, d = map(float, table.rows[2:4, row])
        assert_same(c * z + d * u, reference.step(u, t, z).pred_original_sample)
        assert_same(level(table.refine_noise, step, z, u), reference.add_noise(z, u, torch.tensor([t])))
        expected = scheduler.add_noise(z, u, scheduler.timesteps[step : step + 1])
        assert_same(level(table.point_noise, step, z, u), expected)


def level(levels: Any, step: int, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    alpha, sigma = map(float, levels[:, step])
    return alpha * z + sigma * u


def test_noise_levels_of_a_flow() -> None:
    table = make_table(make_scheduler("flow_euler"), 10, r_noise=0.5)
    share = table.timesteps / 1000
    assert table.point_noise[1].tolist() == pytest.approx(share.tolist(), rel=1e-5)
    assert (table.point_noise.sum(axis=0)).tolist() == pytest.approx([1.0] * 10)
    assert table.refine_noise[1].tolist() == pytest.approx((share / 2).tolist(), rel=1e-5)
    rows = table.rows[:, table.refine_row]
    assert rows[2].tolist() == [1.0] * 10
    assert rows[3].tolist() == pytest.approx((-share / 2).tolist(), rel=1e-5)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("solver", "option", "value"),
    [
        ("ddim", "clip_sample", True),
        ("ddim", "thresholding", True),
        ("pndm", "skip_prk_steps", False),
        ("dpm++2m", "algorithm_type", "sde-dpmsolver++"),
        ("dpm++3m", "algorithm_type", "dpmsolver"),
        ("dpm++2m", "thresholding", True),
        ("lcm", "clip_sample", True),
        ("unipc3", "solver_p", DPMSolverMultistepScheduler()),
        ("flow_euler", "invert_sigmas", True),
        ("dpm++2m", "variance_type", "learned"),
        ("unipc2", "predict_x0", False),
        ("flow_euler", "stochastic_sampling", True),
        ("euler", "timestep_type", "continuous"),
    ],
)
def test_options_that_no_coefficients_describe_are_refused_by_name(solver: str, option: str, value: Any) -> None:
    scheduler = make_scheduler(solver)
    scheduler.register_to_config(**{option: value})
    with pytest.raises(ConfigError, match=f"scheduler option {option}=") as caught:
        make_table(scheduler, 10)
    assert caught.value.facts["option"] == option


@pytest.mark.parametrize(
    "kind",
    [HeunDiscreteScheduler, DPMSolverSinglestepScheduler, DDPMScheduler, TCDScheduler, FlowMatchLCMScheduler],
)
def test_other_solvers_are_refused_by_name_with_those_that_can_be_used(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"can't step a {kind.__name__}; it can step DDIMScheduler, .*LCMScheduler"):
        make_table(kind(), 10)


def test_steps_without_a_clean_prediction_are_refused() -> None:
    scheduler = make_scheduler("ddim", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ConfigError, match="prediction_type=epsilon with rescale_betas_zero_snr=True"):
        make_table(scheduler, 10)


@pytest.mark.parametrize(("num_steps", "offset", "words"), [(1001, 0, "at most 1000"), (1000, 1, "steps_offset=1")])
def test_schedules_longer_than_the_model_knows_are_refused(num_steps: int, offset: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_table(make_scheduler("ddim", steps_offset=offset), num_steps)


@pytest.mark.parametrize("solver", ["ddim", "unipc2"])
def test_the_callers_scheduler_is_left_alone(solver: str) -> None:
    scheduler = make_scheduler(solver)
    before = dict(scheduler.config), scheduler.num_inference_steps
    make_table(scheduler, 10)
    assert (dict(scheduler.config), scheduler.num_inference_steps) == before
