"""The diffusers schedulers behind the solver names of the configuration. Formulas stay where they are: in diffusers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from addiffusion.backbones.base import Scheduler
from addiffusion.config import SamplerSection
from addiffusion.errors import ConfigError

_KINDS: Mapping[str, tuple[type, Mapping[str, Any]]] = MappingProxyType(
    {
        "ddim": (DDIMScheduler, {}),
        "dpm++2m": (DPMSolverMultistepScheduler, {"solver_order": 2, "algorithm_type": "dpmsolver++"}),
        "dpm++3m": (DPMSolverMultistepScheduler, {"solver_order": 3, "algorithm_type": "dpmsolver++"}),
        "euler": (EulerDiscreteScheduler, {}),
        "unipc2": (UniPCMultistepScheduler, {"solver_order": 2}),
        "unipc3": (UniPCMultistepScheduler, {"solver_order": 3}),
        "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
        "flow_euler": (FlowMatchEulerDiscreteScheduler, {}),
        "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
        "lcm": (LCMScheduler, {}),
    }
)
_FLOW = "flow_euler"
_OTHER_SCHEDULES: Mapping[str, str] = MappingProxyType(
    {
        "use_dynamic_shifting": "shifts the schedule by the image's size, which no table built once can do: set it to "
        "false there and shift to a fixed value",
        "use_flow_sigmas": "makes a flow of a solver for diffusions, whose noise levels are others: put a "
        "FlowMatchEulerDiscreteScheduler there",
    }
)
"""Options that would lay out another schedule than the one a table is built for."""


def is_flow(scheduler: Scheduler) -> bool:
    """Whether a scheduler goes along straight flows, z_t = (1 - s) z0 + s noise, instead of a diffusion."""
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler)


def solver_of(own: Scheduler, sampler: SamplerSection) -> Scheduler:
    """The solver a configuration names, on the noise schedule of the model's own scheduler.

    Args:
        own: the scheduler the pipeline came with; it is left as it is.
        sampler: ``solver`` and ``spacing`` are used.

    Raises:
        ConfigError: the solver does not fit the model, or does not know an option the model needs, or the model's
            schedule can't be laid out.
    """
    check_schedule(own)
    if sampler.solver == "pipeline":
        return _spaced(copy.deepcopy(own), sampler.spacing)
    kind, options = _KINDS[sampler.solver]
    if is_flow(own) != (sampler.solver == _FLOW):
        raise _other_family(own, sampler.solver)
    _check_betas(own)
    scheduler = own if isinstance(own, kind) else rebuilt(own, kind, options)
    _check_same_noise(own, scheduler, sampler.solver)
    return _spaced(rebuilt(scheduler, type(scheduler), options), sampler.spacing)


def respaced(scheduler: Scheduler, *, order: int) -> Scheduler:
    """A DPM-Solver++ of the same noise whose schedule its user lays out.

    Order 1 is DDIM (arXiv:2211.01095 Sec. 4), and on a flow it is Euler's method.
    """
    options: dict[str, Any] = {
        "solver_order": order,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        **dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"), False),
    }
    if is_flow(scheduler):
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    return rebuilt(scheduler, DPMSolverMultistepScheduler, options)


def rebuilt(scheduler: Scheduler, kind: Any, options: Mapping[str, Any]) -> Any:
    """A scheduler of another kind with every option of the given one that it knows."""
    known = inspect.signature(kind.__init__).parameters
    kept = {name: value for name, value in scheduler.config.items() if name in known}
    # DDIM and LCM clip z0 to [-1, 1] unless told otherwise, which no latent model wants.
    unclipped = {"clip_sample": False} if "clip_sample" in known and "clip_sample" not in scheduler.config else {}
    return kind(**{**unclipped, **kept, **options})


def _spaced(scheduler: Any, spacing: str) -> Scheduler:
    if spacing == "pipeline":
        return scheduler
    options = {"use_karras_sigmas": True} if spacing == "karras" else {"timestep_spacing": spacing}
    (option,) = options
    if option not in inspect.signature(type(scheduler).__init__).parameters:
        raise ConfigError(
            f"sampler.spacing={spacing} needs the option {option}, which {type(scheduler).__name__} does not have: "
            "use sampler.spacing=pipeline, or another solver.",
            option=option,
        )
    scheduler.register_to_config(**options)
    return rebuilt(scheduler, type(scheduler), {})


def check_schedule(own: Scheduler) -> None:
    """Refuse a schedule that no table built once can follow.

    Raises:
        ConfigError: an option lays out another one, or the betas end before the timesteps do.
    """
    for option, reason in _OTHER_SCHEDULES.items():
        if own.config.get(option):
            raise ConfigError(
                f"The scheduler option {option}=True in scheduler/scheduler_config.json of the pipeline {reason}.",
                option=option,
            )

    betas, known = own.config.get("trained_betas"), own.config.get("num_train_timesteps")
    if betas is not None and known is not None and len(betas) < known:
        raise ConfigError(
            f"The scheduler option trained_betas in scheduler/scheduler_config.json of the pipeline has {len(betas)} "
            f"values for num_train_timesteps={known}: the file is damaged; get it again.",
            option="trained_betas",
        )


def _check_betas(own: Scheduler) -> None:
    if not is_flow(own) and not hasattr(own, "alphas_cumprod"):
        kind = type(own).__name__
        raise ConfigError(
            f"The model's scheduler is a {kind}, which has no schedule of betas that another solver could follow, and "
            "the sampler can't step it either: models of this kind can't be sampled here.",
            scheduler=kind,
        )


def _check_same_noise(own: Any, scheduler: Any, solver: str) -> None:
    """Every solver must know the betas the model was trained with, also where they end at zero signal."""
    if is_flow(own):
        return
    # Solvers that would divide by the last alpha_bar of a zero-SNR schedule hold 2^-24 there instead of 0.
    if (own.alphas_cumprod - scheduler.alphas_cumprod).abs().max() > 2**-23:
        raise ConfigError(
            f"sampler.solver={solver} does not know rescale_betas_zero_snr, which the model's scheduler has on: use "
            "ddim, euler, dpm++2m or unipc2.",
            option="rescale_betas_zero_snr",
        )


def _other_family(own: Scheduler, solver: str) -> ConfigError:
    what, fix = ("flow matching", "use flow_euler") if is_flow(own) else ("a diffusion", "use ddim, euler or dpm++2m")
    return ConfigError(f"sampler.solver={solver} can't sample this model, which is {what}: {fix}.", solver=solver)
