"""What a step is worth: scores along the full run, of shorter runs, and when each prompt is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addiffusion.config.sampling import FinishSolverName
from addiffusion.embedded.world.scenes import TIERS
from evaluation.model_card.drawing import JUDGED, CardRunner, Scores, Setting, tier_rows

TOLERANCE = 0.01
"""A prompt is done at the step from which its score is within this share of the final one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticPoint:
    """Mean scores of one tier's finished images with one static sampler."""

    solver: FinishSolverName
    steps: int
    guidance: float
    tier: int
    soft: float
    strict: float
    clip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRun:
    """Scores of the decoded z0_pred at every step of DDIM at full length, of one tier at one guidance scale."""

    guidance: float
    tier: int
    soft: NDArray[np.float64]
    """(step,) means over prompts."""
    clip: NDArray[np.float64]
    first: NDArray[np.int64]
    """(prompt,) 1-based step at which the score first is within TOLERANCE of the final one."""
    settled: NDArray[np.int64]
    """(prompt,) 1-based step from which on it stays there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """All of it."""

    static: tuple[StaticPoint, ...]
    full: tuple[FullRun, ...]

    def soft(self, setting: Setting, tier: int) -> float:
        """The mean scene score of one static point."""
        return next(
            point.soft
            for point in self.static
            if Setting(solver=point.solver, steps=point.steps, guidance=point.guidance) == setting
            and point.tier == tier
        )


def measure_curves(runner: CardRunner) -> Curves:
    """Every solver, length and guidance scale of the plan, on the same prompts and noise."""
    plan = runner.plan
    static: list[StaticPoint] = []
    full: list[FullRun] = []
    for guidance in plan.guidances:
        runs = _full_runs(runner, guidance)
        full += [run for run, _ in runs]
        static += [point for _, point in runs]
        for solver in plan.solvers:
            for steps in plan.steps:
                if (solver, steps) != ("ddim", plan.full_steps):
                    static += _static_points(runner, Setting(solver=solver, steps=steps, guidance=guidance))
    return Curves(static=tuple(static), full=tuple(full))


def _static_points(runner: CardRunner, setting: Setting) -> list[StaticPoint]:
    prompts = runner.prompts(runner.plan.curve_prompts_per_tier)
    judged = runner.judge(runner.images(prompts, setting, f"{setting.solver} {setting.steps}"), prompts)
    return [_point(judged, tier_rows(prompts, tier), tier, setting) for tier in TIERS]


def _point(judged: Scores, rows: NDArray[np.intp], tier: int, setting: Setting) -> StaticPoint:
    return StaticPoint(
        solver=setting.solver,
        steps=setting.steps,
        guidance=setting.guidance,
        tier=tier,
        soft=float(judged["scene_soft"][rows].mean()),
        strict=float(judged["scene_strict"][rows].mean()),
        clip=float(judged["clip"][rows].mean()),
    )


def _full_runs(runner: CardRunner, guidance: float) -> list[tuple[FullRun, StaticPoint]]:
    """One pass over the full run serves its curve and its end point."""
    plan = runner.plan
    prompts = runner.prompts(plan.curve_prompts_per_tier)
    setting = Setting(solver="ddim", steps=plan.full_steps, guidance=guidance)
    rows = [
        [runner.judge(runner.sampler.decode(z0), batch) for z0 in moments]
        for batch, moments in runner.z0_preds(prompts, setting, "every step")
    ]
    along = {
        name: np.stack([np.concatenate([batch[step][name] for batch in rows]) for step in range(plan.full_steps)])
        for name in JUDGED
    }
    first, settled = arrival(along["scene_soft"])
    last = {name: values[-1] for name, values in along.items()}
    runs: list[tuple[FullRun, StaticPoint]] = []
    for tier in TIERS:
        own = tier_rows(prompts, tier)
        run = FullRun(
            guidance=guidance,
            tier=tier,
            soft=along["scene_soft"][:, own].mean(axis=1),
            clip=along["clip"][:, own].mean(axis=1),
            first=first[own],
            settled=settled[own],
        )
        runs.append((run, _point(last, own, tier, setting)))
    return runs


def arrival(scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1-based steps at which each column of ``scores`` (step, prompt) first is, and from which it stays, at its end.

    "At its end" is at least (1 - TOLERANCE) of the last score.
    """
    there = scores >= (1 - TOLERANCE) * scores[-1]
    away = ~there[::-1]
    last_away = np.where(away.any(axis=0), len(scores) - away.argmax(axis=0), 0)
    return there.argmax(axis=0) + 1, last_away + 1
