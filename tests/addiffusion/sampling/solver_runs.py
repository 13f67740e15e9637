"""Two ways to run one image through a solver: by its table, and by the diffusers scheduler itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from addiffusion.sampling.solver_tables.build import build_table
from addiffusion.sampling.solver_tables.table import SolverTable

NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SOLVERS = (
    "ddim",
    "dpm++2m",
    "dpm++3m",
    "euler",
    "unipc2",
    "unipc3",
    "pndm",
    "flow_euler",
    "euler_ancestral",
    "lcm",
)
NOISY = ("euler_ancestral", "lcm")
SHAPE = (2, 4, 8, 8)


def make_scheduler(solver: str, **options: Any) -> Any:
    """A scheduler as a user would configure it."""
    noise = {**NOISE, **options}
    kinds: dict[str, Any] = {
        "ddim": lambda: DDIMScheduler(**noise, clip_sample=False),
        "dpm++2m": lambda: DPMSolverMultistepScheduler(**noise),
        "dpm++3m": lambda: DPMSolverMultistepScheduler(**noise, solver_order=3),
        "euler": lambda: EulerDiscreteScheduler(**noise),
        "unipc2": lambda: UniPCMultistepScheduler(**noise),
        "unipc3": lambda: UniPCMultistepScheduler(**noise, solver_order=3, solver_type="bh1"),
        "pndm": lambda: PNDMScheduler(**noise, skip_prk_steps=True),
        "flow_euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
        "euler_ancestral": lambda: EulerAncestralDiscreteScheduler(**noise),
        "lcm": lambda: LCMScheduler(**{"original_inference_steps": 100, **noise}, clip_sample=False),
    }
    return kinds[solver]()


def make_table(
    scheduler: Any, num_steps: int, *, finish_steps: int = 0, r_noise: float = 0.5, finish_solver: str = "ddim"
) -> SolverTable:
    return build_table(scheduler, num_steps, finish_steps=finish_steps, r_noise=r_noise, finish_solver=finish_solver)


def network(z: Tensor, t: float) -> Tensor:
    """Nonlinear in z, so that errors of a step are fed into the next one."""
    return torch.tanh(z.roll(1, -1) * (1.2 - t / 1000)) + 0.5 * z * t / 1000


def latent(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def assert_same(actual: Tensor, expected: Tensor, *, peak: float = 0.0) -> None:
    """Equal to 1e-5 of the largest value, or to some roundings of ``peak``, the largest on the way there.

    Latents of 4096, where a schedule ends without signal, leave absolute errors that how a CPU rounds decides about.
    """
    atol = max(1e-5 * max(1.0, expected.abs().max().item()), 1e-6 * peak)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=atol)


class TableRun:
    """One image that follows a table's rows."""

    def __init__(self, table: SolverTable, z: Tensor, *, row: int | None = None, noise: torch.Generator | None = None):
        self.table, self.row, self._noise = table, int(table.entry_row[0]) if row is None else row, noise
        self.state = torch.zeros(table.state_size, *z.shape)
        self.state[0] = z

    @property
    def z(self) -> Tensor:
        return self.state[0]

    def predict(self) -> tuple[Tensor, Tensor]:
        """(raw output, z0_pred) at the present row."""
        t, in_scale, c, d, _ = map(float, self.table.rows[:5, self.row])
        u = network(in_scale * self.z, t)
        return u, c * self.z + d * u

    def step(self) -> Tensor:
        """Commit the row's step and go on; the clean prediction."""
        u, z0_pred = self.predict()
        sources = torch.cat([self.state, u[None]])
        self.state = torch.einsum("kl,l...->k...", torch.from_numpy(self.table.transitions[self.row]), sources)
        level = float(self.table.rows[4, self.row])
        if level and self._noise is not None:
            self.state[0] += level * torch.randn(SHAPE, generator=self._noise)
        self.row = int(self.table.next_row[self.row])
        return z0_pred


class SchedulerRun:
    """One image that follows diffusers."""

    def __init__(self, scheduler: Any, num_steps: int, *, begin: int = 0, noise: torch.Generator | None = None):
        self.scheduler = copy.deepcopy(scheduler)
        self.scheduler.set_timesteps(num_steps)
        self.timesteps = self.scheduler.timesteps[begin:]
        self._options = {} if noise is None else {"generator": noise}
        if begin and hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin)

    def step(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """(next latent, clean prediction where the scheduler tells it)."""
        scale = getattr(self.scheduler, "scale_model_input", lambda sample, _: sample)
        result = self.scheduler.step(network(scale(z, t), float(t)), t, z, **self._options)
        for name in ("pred_original_sample", "denoised"):
            if getattr(result, name, None) is not None:
                return result.prev_sample, getattr(result, name)
        outputs = getattr(self.scheduler, "model_outputs", None)
        return result.prev_sample, None if outputs is None else outputs[-1]


def assert_steps_like_diffusers(solver: str, scheduler: Any, num_steps: int, *, begin: int = 0) -> None:
    """Walk the schedule beside the scheduler from a point on, compared at every step."""
    table = make_table(scheduler, num_steps)
    ours_noise, theirs_noise = (torch.Generator().manual_seed(5) if solver in NOISY else None for _ in range(2))
    theirs = SchedulerRun(scheduler, num_steps, begin=begin, noise=theirs_noise)
    z = latent() * (table.point_noise[1, begin].item() if begin else table.init_noise_sigma)
    ours = TableRun(table, z, row=int(table.entry_row[begin]), noise=ours_noise)
    assert table.timesteps[begin:].tolist() == [float(t) for t in theirs.timesteps]
    peak = 0.0
    for index, t in enumerate(theirs.timesteps):
        peak = max(peak, z.abs().max().item())
        z0_pred = ours.step()
        z, expected = theirs.step(z, t)
        if expected is not None:
            assert_same(z0_pred, expected, peak=peak)
        if index + 1 < len(theirs.timesteps):
            assert_same(ours.z, z, peak=peak)
        elif expected is None and solver != "pndm":
            assert_same(z0_pred, z)
