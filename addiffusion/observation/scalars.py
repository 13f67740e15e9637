"""Components that every observation has: where the schedule stands and what a pass costs."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from addiffusion.sampling.slot import SlotInfo

PRICE_CENTRE = 0.01
"""The price whose logarithm is 0 in phi."""
PRICE_DECADES = 0.25
"""Decades of price per unit of phi: a price has to be heard beside hundreds of other numbers."""
PRICE_FLOOR = 1e-4
"""Prices below are indistinguishable to the policy; keeps a price of zero finite."""
GUIDANCE_UNIT = 7.5
"""Guidance scale that is 1 in phi."""
STEPS_CENTRE = 50
"""Number of steps whose logarithm is 0 in phi; twice as many is 1."""
MAX_PERIOD = 10_000.0
"""Base of the sinusoidal wavelengths (arXiv:1706.03762 Sec. 3.5)."""


def progress(info: SlotInfo, *, num_steps: int, c_nfe: float) -> list[float]:
    """In the order of PROGRESS_NAMES."""
    return [info.step / num_steps, info.nfe / num_steps, _log_price(c_nfe), info.attention_entropy]


def setting_of(info: SlotInfo) -> list[float]:
    """In the order of SETTING_NAMES, each of the order of 1."""
    return [
        info.guidance_scale / GUIDANCE_UNIT,
        math.log2(info.num_steps / STEPS_CENTRE),
        (info.solver_memory - 1) / 2,
        info.cost_left_frac,
    ]


@lru_cache(maxsize=1024)
def _log_price(c_nfe: float) -> float:
    return float(log_price(c_nfe))


def log_price(c_nfe: float | NDArray[np.float32]) -> NDArray[np.float32]:
    """Price of an NFE as phi shows it: PRICE_DECADES above PRICE_CENTRE."""
    floored = np.maximum(np.asarray(c_nfe, np.float32), np.float32(PRICE_FLOOR))
    return np.asarray(np.log10(floored / np.float32(PRICE_CENTRE)) / np.float32(PRICE_DECADES), np.float32)


@lru_cache(maxsize=4096)
def sinusoid(timestep: float, width: int) -> NDArray[np.float32]:
    """(width,) sine and cosine pairs of falling frequency (arXiv:1706.03762 Sec. 3.5), of the training timestep."""
    frequency = MAX_PERIOD ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    angle = timestep * frequency
    pairs = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(width).astype(np.float32)
    pairs.flags.writeable = False  # known timesteps are computed once
    return pairs
