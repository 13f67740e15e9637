"""Numbers that may be missing: their mean, how JSON holds them, how a table shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_of_numbers(values: Sequence[float] | NDArray[np.floating]) -> float:
    """Mean over the values that are numbers; NaN when there are none."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if numbers.size else float("nan")


def json_number(value: Any) -> Any:
    """The value, or null: JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number_text(value: float, digits: int) -> str:
    """So many decimals, or a dash where there is no number."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"
