"""Refusals of schedulers whose steps a table can't hold, each with the configuration key that cures it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.backbones.base import Scheduler
from addiffusion.errors import ConfigError
from addiffusion.sampling.solver_tables.probe import FLOW, NOISY, Probe, names_of

_KNOWN = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "UniPCMultistepScheduler",
    "PNDMScheduler",
    FLOW,
    *NOISY,
)
_REFUSED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("clip_sample", (False, None)),
    ("thresholding", (False, None)),
    ("skip_prk_steps", (True, None)),
    ("algorithm_type", ("dpmsolver++", None)),
    ("predict_x0", (True, None)),
    ("solver_p", (None,)),
    ("stochastic_sampling", (False, None)),
    ("invert_sigmas", (False, None)),
    ("timestep_type", ("discrete", None)),
    ("variance_type", (None, "fixed_small", "fixed_large")),
)
"""Options whose other values make a step depend on the image itself, or on more than state and output."""


def check_options(scheduler: Scheduler) -> None:
    """Refuse a scheduler whose steps no fixed coefficients describe.

    Raises:
        ConfigError: its class is not known, or one of its options makes such steps.
    """
    names = names_of(scheduler)
    if names.isdisjoint(_KNOWN):
        kind = type(scheduler).__name__
        raise ConfigError(
            f"The sampler can't step a {kind}; it can step {', '.join(_KNOWN)}: set sampler.solver to a solver's name.",
            scheduler=kind,
        )
    for option, linear in _REFUSED:
        value = scheduler.config.get(option)
        if value not in linear:
            raise ConfigError(
                f"The scheduler option {option}={value} makes steps that no fixed coefficients describe: set {option} "
                f"to {linear[0]} in scheduler/scheduler_config.json of the pipeline.",
                option=option,
            )


def laid_out(scheduler: Scheduler, num_steps: int) -> Probe:
    """The scheduler with a base schedule of ``num_steps``.

    Raises:
        ConfigError: it has no schedule of that many steps.
    """
    known = int(scheduler.config["num_train_timesteps"])
    flow = FLOW in names_of(scheduler)
    if num_steps > known:
        raise ConfigError(
            f"sampler.num_steps is {num_steps}, but the model's scheduler knows only {known} timesteps: "
            f"choose at most {known}.",
            num_steps=num_steps,
        )
    try:
        probe = Probe(scheduler, num_steps)
    except (ValueError, IndexError) as error:
        raise ConfigError(
            f"{type(scheduler).__name__} has no schedule of sampler.num_steps={num_steps} ({error}): choose another "
            "number of steps.",
            num_steps=num_steps,
        ) from error
    latest = max(float(t) for t in probe.timesteps)
    if not flow and latest > known - 1:
        raise ConfigError(
            f"sampler.num_steps={num_steps} with steps_offset={scheduler.config['steps_offset']} asks for timestep "
            f"{latest:g}, but the model's scheduler ends at {known - 1}: choose fewer steps.",
            num_steps=num_steps,
        )
    return probe


def check_finite(rows: NDArray[np.float64], scheduler: Any) -> None:
    """Refuse a table with coefficients that are not finite.

    Args:
        rows: (5 + K (K + 1), R) as of ``SolverTable.rows``.
        scheduler: what they were read off, with its schedule laid out.

    Raises:
        ConfigError: one is not.
    """
    if np.isfinite(rows).all():
        return
    if FLOW in names_of(scheduler):
        raise ConfigError(
            f"{type(scheduler).__name__} with shift_terminal={scheduler.config.get('shift_terminal')} has no finite "
            f"schedule of sampler.num_steps={len(scheduler.timesteps)}: choose more steps.",
            num_steps=len(scheduler.timesteps),
        )
    options = {name: scheduler.config.get(name) for name in ("prediction_type", "rescale_betas_zero_snr")}
    raise ConfigError(
        f"prediction_type={options['prediction_type']} with rescale_betas_zero_snr="
        f"{options['rescale_betas_zero_snr']} has steps without a clean prediction: use timestep_spacing=leading, "
        "or a model of v_prediction.",
        **options,
    )
