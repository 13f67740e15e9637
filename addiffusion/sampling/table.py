"""Everything a slot can do, as rows of one table.

A row is one network pass at one timestep and what follows from its raw output ``u``:

    z0_pred = c * z + d * u          the clean prediction
    z_next  = a * z + b * u          the latent after the solver's step

At a fixed step a deterministic solver is linear in (z, u), so the coefficients are read off the diffusers scheduler
itself by stepping it with unit vectors: no formula of a solver is written down a second time.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from addiffusion.backbones.base import Scheduler
from addiffusion.errors import ConfigError

COLUMNS = ("t", "c", "d", "a", "b")
"""Columns of ``SolverTable.rows``."""

_SUPPORTED = "DDIMScheduler"
_NON_LINEAR = ("clip_sample", "thresholding")


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverTable:
    """The rows in order: base steps, refine passes, finish passes, and one dead row for idle slots."""

    num_steps: int
    """N: schedule points of the base schedule."""
    rows: NDArray[np.float32]
    """(5, R) in the order of COLUMNS."""
    timesteps: NDArray[np.float32]
    """(N,) training timestep of each schedule point."""
    point_noise: NDArray[np.float32]
    """(2, N) (alpha, sigma) that put a clean latent on a schedule point."""
    refine_noise: NDArray[np.float32]
    """(2, N) (alpha', sigma') that put a clean latent on t' = r_noise * t."""
    finish_start: NDArray[np.int64]
    """(N,) first row of the finish of a stop decided at each step."""
    finish_count: NDArray[np.int64]
    """(N,) passes of that finish: min(finish_steps, N - 1 - i)."""
    init_noise_sigma: float
    """Standard deviation of the initial latent."""

    @property
    def dead_row(self) -> int:
        """Row of slots with nothing to do."""
        return self.rows.shape[1] - 1

    def refine_row(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of the refine passes at a step."""
        return self.num_steps + step


def build_table(scheduler: Scheduler, num_steps: int, *, finish_steps: int, r_noise: float) -> SolverTable:
    """Probe a scheduler for a base schedule of ``num_steps``, its refines and its finishes.

    A stop decided at step i commits that step, then arrives at t = 0 by ``finish_steps`` passes at timesteps spaced
    evenly between T[i + 1] and 0, but never by more passes than the base schedule had left.

    Raises:
        ConfigError: the scheduler is not linear or not DDIM, or has no schedule of that many steps.
    """
    _check_options(scheduler)
    probe = _Probe(scheduler, num_steps)
    points = probe.timesteps
    finishes = [_finish_timesteps(points, step, finish_steps) for step in range(num_steps)]
    columns = [probe.step(t) for t in points]
    refine_points = [round(r_noise * t) for t in points]
    columns += [probe.jump(t, t) for t in refine_points]
    columns += [probe.jump(t, following) for finish in finishes for t, following in _pairs(finish)]
    columns += [np.zeros(len(COLUMNS))]
    rows = np.stack(columns, axis=1)
    _check_finite(rows, scheduler)
    counts = np.array([len(finish) for finish in finishes], dtype=np.int64)
    return SolverTable(
        num_steps=num_steps,
        rows=rows.astype(np.float32),
        timesteps=np.array(points, dtype=np.float32),
        point_noise=probe.noise(points),
        refine_noise=probe.noise(refine_points),
        finish_start=2 * num_steps + np.cumsum(counts) - counts,
        finish_count=counts,
        init_noise_sigma=probe.init_noise_sigma,
    )


class _Probe:
    """A scheduler of double precision, stepped with unit vectors: entry 0 is z, entry 1 is u."""

    def __init__(self, scheduler: Scheduler, num_steps: int) -> None:
        self._scheduler: Any = _double(scheduler)
        self.timesteps = _lay_out(self._scheduler, num_steps)
        self.init_noise_sigma = float(self._scheduler.init_noise_sigma)
        self._jumper = copy.deepcopy(self._scheduler)
        self._z, self._u = torch.eye(2, dtype=torch.float64)

    def step(self, t: int) -> NDArray[np.float64]:
        """Row of the scheduler's own step from ``t``."""
        return self._row(self._scheduler, t)

    def jump(self, t: int, following: int) -> NDArray[np.float64]:
        """Row of a step of any length.

        DDIMScheduler goes down by num_train_timesteps // num_inference_steps, so these two make it as long as wanted.
        """
        self._jumper.register_to_config(num_train_timesteps=t - following)
        self._jumper.num_inference_steps = 1
        return self._row(self._jumper, t)

    def _row(self, scheduler: Any, t: int) -> NDArray[np.float64]:
        result = scheduler.step(self._u, t, self._z)
        return np.concatenate([[t], result.pred_original_sample.numpy(), result.prev_sample.numpy()])

    def noise(self, timesteps: list[int]) -> NDArray[np.float32]:
        """(2, n) (alpha, sigma) at timesteps."""
        levels = [self._scheduler.add_noise(self._z, self._u, torch.tensor([t])).numpy() for t in timesteps]
        return np.stack(levels, axis=1).astype(np.float32)


def _double(scheduler: Scheduler) -> Any:
    """A copy whose coefficients come out exact to float32 rounding."""
    exact: Any = copy.deepcopy(scheduler)
    exact.alphas_cumprod = exact.alphas_cumprod.double()
    exact.final_alpha_cumprod = exact.final_alpha_cumprod.double()
    return exact


def _lay_out(scheduler: Any, num_steps: int) -> list[int]:
    trained = len(scheduler.alphas_cumprod)
    if num_steps > trained:
        raise ConfigError(
            f"sampler.num_steps is {num_steps}, but the model's scheduler knows only {trained} timesteps: "
            f"choose at most {trained}.",
            num_steps=num_steps,
        )
    scheduler.set_timesteps(num_steps)
    timesteps = [int(t) for t in scheduler.timesteps]
    if max(timesteps) >= trained:
        raise ConfigError(
            f"sampler.num_steps={num_steps} with steps_offset={scheduler.config['steps_offset']} asks for timestep "
            f"{max(timesteps)}, but the model's scheduler ends at {trained - 1}: choose fewer steps.",
            num_steps=num_steps,
        )
    return timesteps


def _finish_timesteps(points: list[int], step: int, finish_steps: int) -> list[int]:
    """Timesteps of the passes that follow a stop decided at ``step``."""
    count = min(finish_steps, len(points) - 1 - step)
    return [round(points[step + 1] * (1 - j / count)) for j in range(count)]


def _pairs(timesteps: list[int]) -> list[tuple[int, int]]:
    """(t, next t) of each pass; the last one ends the image, so its latent has nowhere to go and stays."""
    return list(zip(timesteps, [*timesteps[1:], *timesteps[-1:]], strict=True))


def _check_options(scheduler: Scheduler) -> None:
    name = type(scheduler).__name__
    if name != _SUPPORTED:
        raise ConfigError(f"The sampler can't step a {name}: sampler.solver=ddim needs a {_SUPPORTED}.", scheduler=name)
    for option in _NON_LINEAR:
        if scheduler.config[option]:
            raise ConfigError(
                f"The scheduler option {option} is on, which makes its steps depend on the image itself: set {option} "
                "to false in scheduler/scheduler_config.json of the pipeline.",
                option=option,
            )


def _check_finite(rows: NDArray[np.float64], scheduler: Scheduler) -> None:
    if not np.isfinite(rows).all():
        options = {name: scheduler.config[name] for name in ("prediction_type", "rescale_betas_zero_snr")}
        raise ConfigError(
            f"prediction_type={options['prediction_type']} with rescale_betas_zero_snr="
            f"{options['rescale_betas_zero_snr']} has steps without a clean prediction: use timestep_spacing=leading, "
            "or a model of v_prediction.",
            **options,
        )
