"""Many comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import EvaluationError


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """p-values (m,) corrected for the m tests made, in the order given.

    Calling those at most alpha significant keeps the chance of one false finding or more at alpha, whatever the
    dependence between the tests.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6 (1979).

    Raises:
        EvaluationError: a p-value outside [0, 1].
    """
    given = np.asarray(p_values, np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise EvaluationError(
            f"p-values must lie in [0, 1], got {given.tolist()}: leave out comparisons that could not be made.",
            p_values=given.tolist(),
        )
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
