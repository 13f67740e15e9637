"""Metrics by name. Everything a call asks for is checked before the first one is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import EvaluationError
from evaluation.metrics.cmmd import cmmd
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.similarity import cosine_similarity, ssim


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInputs:
    """What metrics are computed from; only what the metrics asked for need has to be there."""

    images: NDArray[np.uint8] | None = None
    """(n, H, W, 3) to be judged."""
    full_images: NDArray[np.uint8] | None = None
    """(n, H, W, 3) the full-length images of the same prompts and seeds."""
    dino: NDArray[np.floating] | None = None
    """(n, f) DINO features of ``images``."""
    full_dino: NDArray[np.floating] | None = None
    """(n, f) of ``full_images``."""
    clip: NDArray[np.floating] | None = None
    """(n, e) L2-normalised CLIP embeddings of ``images``."""
    reference_clip: NDArray[np.floating] | None = None
    """(m, e) of a set of real or reference images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One metric of one set of images."""

    value: float
    per_image: NDArray[np.float64] | None = None
    """(n,) where the metric judges image by image: what paired tests take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How one metric is computed."""

    needs: tuple[str, ...]
    """Fields of MetricInputs, in the order ``compute`` takes them."""
    compute: Callable[..., Measured]
    higher_is_better: bool


def _set_distance(distance: Callable[[Any, Any], float]) -> Callable[..., Measured]:
    return lambda features, reference: Measured(value=distance(features, reference))


def _per_image(similarity: Callable[[Any, Any], NDArray[np.float64]]) -> Callable[..., Measured]:
    def compute(images: Any, full_images: Any) -> Measured:
        values = similarity(images, full_images)
        return Measured(value=float(values.mean()), per_image=values)

    return compute


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "cmmd": Metric(needs=("clip", "reference_clip"), compute=_set_distance(cmmd), higher_is_better=False),
        "dino_similarity": Metric(
            needs=("dino", "full_dino"), compute=_per_image(cosine_similarity), higher_is_better=True
        ),
        "fd_dino": Metric(
            needs=("dino", "full_dino"),
            compute=_set_distance(partial(frechet_distance, "fd_dino")),
            higher_is_better=False,
        ),
        "ssim": Metric(needs=("images", "full_images"), compute=_per_image(ssim), higher_is_better=True),
    }
)
"""Every metric that is computed from arrays or features."""


def measure(names: Sequence[str], inputs: MetricInputs) -> dict[str, Measured]:
    """Compute the metrics called ``names``, in that order.

    Raises:
        EvaluationError: a name that is none, inputs that are missing, or whatever a metric refuses.
    """
    for name in names:
        _check(name, inputs)
    return {name: METRICS[name].compute(*(getattr(inputs, need) for need in METRICS[name].needs)) for name in names}


def _check(name: str, inputs: MetricInputs) -> None:
    if name not in METRICS:
        raise EvaluationError(
            f"There is no metric called {name!r}: choose from {', '.join(METRICS)}.", metric=name, known=tuple(METRICS)
        )
    missing = [need for need in METRICS[name].needs if getattr(inputs, need) is None]
    if missing:
        raise EvaluationError(
            f"{name} can't be computed without {' and '.join(missing)}: give them, or leave {name} out.",
            metric=name,
            missing=missing,
        )
