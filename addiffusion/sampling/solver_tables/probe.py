"""Coefficients of a solver, read off the diffusers scheduler itself by stepping it with unit vectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.sampling.solver_tables.histories import DpmHistory, History, NoHistory, PndmHistory, UniPcHistory

NOISY = ("EulerAncestralDiscreteScheduler", "LCMScheduler")
"""Schedulers that draw noise at every step: for evaluation, never for training."""
VARIANCE_EXPLODING = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
"""Schedulers whose latent is z0 + s noise; all others keep alpha z0 + sigma noise."""
FLOW = "FlowMatchEulerDiscreteScheduler"
_LEAST_ALPHA_BAR = 2.0**-24
"""Stands for 0 where a ratio of noise to signal is needed, as in diffusers' own zero-SNR solvers."""
_NOISE_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step of a solver in its own state space of z and its history."""

    in_scale: float
    clean: NDArray[np.float64] | None
    """(k + 1,) coefficients of (state, u) in the clean prediction; None where the scheduler does not tell."""
    transition: NDArray[np.float64]
    """(k, k + 1)."""
    noise: float


def names_of(scheduler: Any) -> frozenset[str]:
    """Class names of a scheduler and its bases: who may adapt it without importing diffusers."""
    return frozenset(kind.__name__ for kind in type(scheduler).__mro__)


class Probe:
    """A diffusers scheduler with its schedule laid out, and one row for each (point, order) asked for."""

    def __init__(self, scheduler: Any, num_steps: int) -> None:
        self.scheduler = copy.deepcopy(scheduler)
        self.scheduler.set_timesteps(num_steps)
        self.names = names_of(scheduler)
        self.history = _history_of(self.names, self.scheduler.config)
        self.timesteps: list[Tensor] = list(self.scheduler.timesteps)
        self.flow = FLOW in self.names
        self.exploding = not self.names.isdisjoint(VARIANCE_EXPLODING)
        self.init_noise_sigma = float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    def ratios(self) -> list[float]:
        """Noise level of each schedule point: noise over signal, and the share of noise on a flow."""
        sigmas = getattr(self.scheduler, "sigmas", None)
        if sigmas is not None:
            return [float(sigma) for sigma in sigmas[: len(self.timesteps)]]
        return [self.ratio_at(int(t)) for t in self.timesteps]

    def ratio_at(self, t: int) -> float:
        """Noise over signal at a training timestep of a diffusion."""
        alpha_bar = max(float(self.scheduler.alphas_cumprod[t]), _LEAST_ALPHA_BAR)
        return ((1 - alpha_bar) / alpha_bar) ** 0.5

    def row(self, index: int, order: int, scheduler: Any | None = None) -> Row:
        """The step at a schedule point with ``order`` known entries; of another layout, where ``scheduler`` has it."""
        noisy = not self.names.isdisjoint(NOISY)
        return step_row(scheduler or self.scheduler, self.history, index, order, noisy=noisy)


def step_row(scheduler: Any, history: History, index: int, order: int, *, noisy: bool = False) -> Row:
    """Step a copy of ``scheduler`` at ``index`` with unit vectors.

    Vectors are double, coefficients are computed by the scheduler in its own precision: exactly what it would use.

    Args:
        scheduler: of diffusers, with its schedule laid out.
        history: of its kind.
        index: schedule point.
        order: remembered tensors that are known.
        noisy: whether the scheduler draws noise at every step.
    """
    size = history.count + 2
    basis = torch.eye(size, dtype=torch.float64).view(size, 1, size, 1, 1)
    stepped, in_scale, result = _step(scheduler, history, index, order, basis, noisy)
    transition = _stack([result.prev_sample, *history.read(stepped)], size)
    noise = 0.0
    if noisy:
        _, _, silent = _step(scheduler, history, index, order, torch.zeros_like(basis), noisy)
        drawn = torch.randn(basis[0].shape, generator=_generator(), dtype=torch.float64)
        noise = float((silent.prev_sample / drawn).flatten()[0])
        transition[0] -= silent.prev_sample.flatten().numpy()
    clean = _clean_of(stepped, result, history)
    return Row(
        in_scale=in_scale,
        clean=None if clean is None else clean.flatten().double().numpy(),
        transition=transition,
        noise=noise,
    )


def _step(
    scheduler: Any, history: History, index: int, order: int, basis: Tensor, noisy: bool
) -> tuple[Any, float, Any]:
    stepped = copy.copy(scheduler)
    stepped._step_index = index
    z, *entries, u = basis
    history.load(stepped, index, order, entries)
    t = scheduler.timesteps[index]
    in_scale = 1.0
    if hasattr(stepped, "scale_model_input"):
        in_scale = float(stepped.scale_model_input(torch.ones(1, dtype=torch.float64), t))
    options = {"generator": _generator()} if noisy else {}
    return stepped, in_scale, stepped.step(u, t, z, **options)


def _clean_of(stepped: Any, result: Any, history: History) -> Tensor | None:
    for name in ("pred_original_sample", "denoised"):
        if getattr(result, name, None) is not None:
            return getattr(result, name)
    return (
        stepped.model_outputs[-1] if hasattr(stepped, "model_outputs") and not isinstance(history, NoHistory) else None
    )


def _history_of(names: frozenset[str], config: Any) -> History:
    if "DPMSolverMultistepScheduler" in names:
        return DpmHistory(config["solver_order"])
    if "UniPCMultistepScheduler" in names:
        return UniPcHistory(config["solver_order"], lower_order_final=config["lower_order_final"])
    return PndmHistory() if "PNDMScheduler" in names else NoHistory()


def _stack(tensors: Sequence[Tensor | None], size: int) -> NDArray[np.float64]:
    """(k, k + 1): one row per entry of the next state; what is not known yet is never read."""
    rows = [np.zeros(size) if tensor is None else tensor.double().flatten().numpy() for tensor in tensors]
    return np.stack(rows).copy()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_NOISE_SEED)
