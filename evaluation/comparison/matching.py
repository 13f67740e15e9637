"""Opponents that spend what the agent spends: in network passes, or in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from addiffusion.config import SamplerSection
from addiffusion.seeds import derive_seed
from evaluation.comparison.contestants import Contestant, static

_MOST_STEPS = 200


def nfe_of_stop(sampler: SamplerSection, step: int) -> int:
    """NFE of an image that stops at a schedule index, its finish passes included."""
    left = sampler.num_steps - 1 - step
    return sampler.num_steps if left <= 0 else step + 1 + min(sampler.finish_steps, left)


def step_of_nfe(sampler: SamplerSection, nfe: float) -> int:
    """The first schedule index whose stop spends at least ``nfe``; the last one where none does."""
    for step in range(sampler.warmup_steps, sampler.num_steps):
        if nfe_of_stop(sampler, step) >= nfe:
            return step
    return sampler.num_steps - 1


def random_stop(sampler: SamplerSection, nfe: Sequence[int], *, seed: int) -> Contestant:
    """The agent's own NFE, dealt out to other images by chance: same histogram, no thought."""
    dealt = np.random.default_rng(derive_seed(seed, "random stop")).permutation(np.asarray(nfe))
    return Contestant(
        name="random-stop",
        title="random stop, same NFE histogram",
        kind="control",
        sampler=sampler,
        stop_steps=tuple(step_of_nfe(sampler, int(value)) for value in dealt),
    )


def mean_stop(sampler: SamplerSection, mean_nfe: float, count: int, *, seed: int) -> Contestant:
    """Stops at the agent's mean NFE: at the two schedule indices around it, in the share that gives that mean.

    Args:
        sampler: of the agent.
        mean_nfe: of the agent, per image, finish passes included.
        count: cases.
        seed: of the draw that says which case stops where.
    """
    above = step_of_nfe(sampler, mean_nfe)
    below = max(sampler.warmup_steps, above - 1)
    low, high = nfe_of_stop(sampler, below), nfe_of_stop(sampler, above)
    share = 0.0 if high == low else float(np.clip((high - mean_nfe) / (high - low), 0, 1))
    draws = np.random.default_rng(derive_seed(seed, "mean stop")).permutation(count) < round(share * count)
    return Contestant(
        name="mean-stop",
        title="fixed stop at the agent's mean NFE",
        kind="control",
        sampler=sampler,
        stop_steps=tuple(np.where(draws, below, above).tolist()),
    )


def refined_stop(sampler: SamplerSection, mean_nfe: float, count: int, *, refine_passes: int, seed: int) -> Contestant:
    """One refine, then stop, at the agent's mean NFE: what a refine is worth against the passes it takes.

    Args:
        sampler: of the agent.
        mean_nfe: of the agent, per image, finish passes included.
        count: cases.
        refine_passes: NFE of a refine beside the step's own.
        seed: as of ``mean_stop``.
    """
    stop = mean_stop(sampler, mean_nfe - refine_passes, count, seed=seed)
    return replace(stop, name="refined-stop", title="fixed stop after one refine, same mean NFE", refine_last=True)


def equal_nfe(solvers: Sequence[str], sampler: SamplerSection, mean_nfe: float) -> list[Contestant]:
    """Each solver with the fewest steps that spend at least the agent's mean NFE: the doubt is the opponent's."""
    return [static(f"{solver}-{_steps(solver, mean_nfe)}", sampler) for solver in solvers]


def equal_time(
    solvers: Sequence[str], sampler: SamplerSection, seconds: float, known: Mapping[int, float]
) -> list[Contestant]:
    """Each solver with the step count whose time per image is the agent's.

    Args:
        solvers: names of solvers.
        sampler: what their sections are made from.
        seconds: of the agent, per image.
        known: seconds per image by NFE of static samplers that have been timed; a line is put through them.
    """
    steps = max(2, min(_MOST_STEPS, nfe_for_seconds(seconds, known)))
    return [static(f"{solver}-{_steps(solver, steps)}", sampler) for solver in solvers]


def nfe_for_seconds(seconds: float, known: Mapping[int, float]) -> int:
    """NFE of a static sampler that takes ``seconds``, by the line ``fixed + per_pass * nfe`` through what was timed."""
    fixed, per_pass = _line(known)
    return max(1, round((seconds - fixed) / per_pass))


def _line(known: Mapping[int, float]) -> tuple[float, float]:
    """Intercept and slope, least squares; through the origin where one point, or noise, allows no other."""
    nfe: NDArray[np.float64] = np.array(list(known), np.float64)
    times = np.array(list(known.values()), np.float64)
    if len(known) > 1:
        per_pass, fixed = np.polyfit(nfe, times, 1)
        if per_pass > 0 and fixed > 0:
            return float(fixed), float(per_pass)
    return 0.0, float((nfe * times).sum() / (nfe**2).sum())


def _steps(solver: str, nfe: float) -> int:
    """PNDM's warm-up costs one pass more than it has steps."""
    return max(2, math.ceil(nfe - 1e-9) - (solver == "pndm"))
