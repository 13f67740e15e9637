"""Names of the configuration against the diffusers schedulers they stand for."""

from __future__ import annotations

from typing import Any, get_args

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

from addiffusion.backbones.base import Scheduler
from addiffusion.backbones.solvers import is_flow, respaced, solver_of
from addiffusion.config import SamplerSection
from addiffusion.config.sampling import NOISY_SOLVERS, Solver
from addiffusion.errors import ConfigError
from addiffusion.sampling.solver_tables.build import build_table
from addiffusion.sampling.solver_tables.probe import NOISY

NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD15 = PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
ZERO_SNR = DDIMScheduler(
    **NOISE,
    clip_sample=False,
    prediction_type="v_prediction",
    timestep_spacing="trailing",
    rescale_betas_zero_snr=True,
)
FLOW = FlowMatchEulerDiscreteScheduler(shift=3.0)
DIFFUSION = [name for name in get_args(Solver) if name not in {"pipeline", "flow_euler"}]


def make(own: Any, solver: Any, spacing: Any = "pipeline") -> Any:
    return solver_of(own, SamplerSection(solver=solver, spacing=spacing, num_steps=10))


@pytest.mark.parametrize("solver", DIFFUSION)
def test_every_name_is_a_solver_of_the_models_noise(solver: str) -> None:
    scheduler = make(SD15, solver)
    assert torch.equal(scheduler.alphas_cumprod, SD15.alphas_cumprod)
    assert scheduler.config["steps_offset"] == 1
    assert not scheduler.config.get("clip_sample")
    assert (type(scheduler).__name__ in NOISY) == (solver in NOISY_SOLVERS)
    scheduler.set_timesteps(10)


def test_orders_are_those_of_the_name() -> None:
    for solver, order in {"dpm++2m": 2, "dpm++3m": 3, "unipc2": 2, "unipc3": 3}.items():
        assert make(SD15, solver).config["solver_order"] == order


def test_the_pipelines_own_scheduler_is_copied() -> None:
    scheduler = make(SD15, "pipeline")
    assert scheduler is not SD15
    assert dict(scheduler.config) == dict(SD15.config)


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "euler", "unipc3", "euler_ancestral", "lcm"])
def test_zero_snr_is_kept(solver: str) -> None:
    assert make(ZERO_SNR, solver).config["rescale_betas_zero_snr"]


def test_zero_snr_is_refused_where_the_solver_does_not_know_it() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.solver=pndm does not know rescale_betas_zero_snr"):
        make(ZERO_SNR, "pndm")


def test_spacings_are_options_of_the_scheduler() -> None:
    assert make(SD15, "ddim", "trailing").config["timestep_spacing"] == "trailing"
    assert make(SD15, "pipeline", "linspace").config["timestep_spacing"] == "linspace"
    assert make(SD15, "euler", "karras").config["use_karras_sigmas"]
    assert make(FLOW, "flow_euler", "karras").config["use_karras_sigmas"]
    with pytest.raises(ConfigError, match=r"sampler\.spacing=karras needs the option use_karras_sigmas"):
        make(SD15, "ddim", "karras")


def test_flows_and_diffusions_are_not_mixed() -> None:
    assert is_flow(make(FLOW, "flow_euler"))
    assert make(FLOW, "flow_euler").config["shift"] == 3.0
    with pytest.raises(ConfigError, match=r"sampler\.solver=ddim can't sample this model, which is flow matching"):
        make(FLOW, "ddim")
    with pytest.raises(ConfigError, match=r"sampler\.solver=flow_euler can't sample this model, which is a diffusion"):
        make(SD15, "flow_euler")


@pytest.mark.parametrize(
    ("own", "option", "fix"),
    [
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "use_dynamic_shifting", "set it to false"),
        (
            DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            "use_flow_sigmas",
            "put a FlowMatchEulerDiscreteScheduler there",
        ),
    ],
)
@pytest.mark.parametrize("solver", ["pipeline", "ddim", "flow_euler"])
def test_schedules_that_can_not_be_laid_out_are_refused_by_name(own: Any, option: str, fix: str, solver: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"scheduler option {option}=True in .*scheduler_config\.json.*{fix}"
    ) as caught:
        make(own, solver)
    assert caught.value.facts["option"] == option


def test_a_respaced_solver_is_dpm_solver_of_the_same_noise() -> None:
    karras: Any = DPMSolverMultistepScheduler(**NOISE, use_karras_sigmas=True, prediction_type="v_prediction")
    solver: Any = respaced(karras, order=2)
    assert not solver.config["use_karras_sigmas"]
    assert (solver.config["prediction_type"], solver.config["solver_order"]) == ("v_prediction", 2)
    flow: Any = respaced(FLOW, order=1)
    assert (flow.config["prediction_type"], flow.config["use_flow_sigmas"]) == ("flow_prediction", True)


SCHEDULERS = sorted(name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax"))


def made(name: str) -> Any:
    """A scheduler as its defaults make it; None for those that need arguments or other libraries."""
    try:
        return getattr(diffusers, name)()
    except (TypeError, ValueError, ImportError, AttributeError):
        return None


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_diffusers_gives_a_table_or_one_sentence(name: str) -> None:
    own = made(name)
    if not isinstance(own, Scheduler):
        pytest.skip("needs arguments")
    for solver in get_args(Solver):
        try:
            table = build_table(make(own, solver), 5, finish_steps=2, r_noise=0.5)
        except ConfigError as error:
            assert error.message.endswith(".")  # noqa: PT017 - one or the other
        else:
            assert table.num_steps >= 5


def test_a_scheduler_without_betas_is_named() -> None:
    with pytest.raises(ConfigError, match="is a EDMDPMSolverMultistepScheduler, which has no schedule of betas"):
        make(diffusers.EDMDPMSolverMultistepScheduler(), "euler")


@pytest.mark.parametrize("solver", ["dpm++2m", "dpm++3m", "ddim"])
def test_deis_lends_its_noise_to_other_solvers(solver: str) -> None:
    scheduler = make(diffusers.DEISMultistepScheduler(**NOISE), solver)
    assert torch.equal(scheduler.alphas_cumprod, SD15.alphas_cumprod)
    assert scheduler.config.get("algorithm_type", "dpmsolver++") == "dpmsolver++"
    build_table(scheduler, 10, finish_steps=2, r_noise=0.5)


def test_betas_that_end_too_early_are_named() -> None:
    own = DDIMScheduler(trained_betas=[0.01] * 20, clip_sample=False)
    with pytest.raises(ConfigError, match=r"trained_betas .* has 20 values for num_train_timesteps=1000"):
        make(own, "ddim")
    with pytest.raises(ConfigError, match=r"trained_betas .* has 20 values"):
        build_table(own, 10, finish_steps=2, r_noise=0.5)


def test_tables_of_flows_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"use_dynamic_shifting=True .* shifts the schedule by the image's size"):
        build_table(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 10, finish_steps=0, r_noise=0.5)
    with pytest.raises(
        ConfigError, match=r"shift_terminal=0\.02 has no finite schedule of sampler\.num_steps=1: choose"
    ):
        build_table(FlowMatchEulerDiscreteScheduler(shift_terminal=0.02), 1, finish_steps=0, r_noise=0.5)
