"""`addiffusion metrics`: a folder of images, measured by itself, against prompts, and against another folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from addiffusion.config import ScorersSection
from addiffusion.configuration.files import load_config
from addiffusion.devices import resolve_device
from addiffusion.errors import EvaluationError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.factory import load_scoring
from evaluation.comparison.folders import ImageFolder, check_same_names, load_folder, prompts_of
from evaluation.inception import (
    INCEPTION_METRICS,
    NEED_REFERENCE,
    InceptionNetwork,
    check_inception_counts,
    inception_metrics,
    load_inception,
)
from evaluation.metrics.registry import METRICS, MetricInputs, measure
from launch.comparing.orders import MetricsOrder
from launch.runtime.console import Stage

_AT_ONCE = 64
"""Images in a request to the scorers."""
_OF_REFERENCE = frozenset({"full_images", "full_dino", "reference_clip"})


def measure_folder(
    order: MetricsOrder,
    scoring: Scoring | None = None,
    *,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, dict[str, float | int]]:
    """Mean and number of images by metric; everything is checked before anything is computed.

    Args:
        order: what to measure.
        scoring: where the scores come from; None loads those of ``overrides``.
        overrides: configuration of the scorers.
        console: where progress is shown; None: stderr.

    Raises:
        EvaluationError: a metric that is none or lacks what it needs, or images that can't be used.
    """
    _check_reference(order)
    folder = load_folder(order.images)
    reference = None if order.reference is None else load_folder(order.reference)
    by_inception = [name for name in order.metrics if name in INCEPTION_METRICS]
    check_inception_counts(by_inception, len(folder.names), None if reference is None else len(reference.names))
    console = console or Console(stderr=True)
    section = load_config([], overrides).scorers
    network = _network(order, section, console) if by_inception else None
    found: dict[str, dict[str, float | int]] = {}
    if len(by_inception) < len(order.metrics):
        found |= _by_scorers(order, folder, reference, scoring or _scorers(section, console), console)
    if network is not None:
        found |= _by_inception(by_inception, network, folder, reference, console)
    return {name: found[name] for name in order.metrics}


def _by_scorers(
    order: MetricsOrder,
    folder: ImageFolder,
    reference: ImageFolder | None,
    scoring: Scoring,
    console: Console,
) -> dict[str, dict[str, float | int]]:
    _check_names(order.metrics, scoring)
    scores = [name for name in order.metrics if name in scoring.names]
    sets = [name for name in order.metrics if name in METRICS]
    if any(name in ("ssim", "dino_similarity") for name in sets) and reference is not None:
        check_same_names(folder, reference)
    prompts = prompts_of(folder, order.prompts) if scores else ("",) * len(folder.names)
    with Stage(console, "images", _total(folder, reference)) as stage:
        ours = _look(scoring, folder, prompts, scores, stage)
        theirs = None if reference is None else _look(scoring, reference, ("",) * len(reference.names), (), stage)
    found = {name: _mean(ours.scores[name]) for name in scores}
    inputs = _inputs(folder, reference, ours, theirs)
    return found | {name: _entry(one.value, folder) for name, one in measure(sets, inputs).items()}


def _scorers(section: ScorersSection, console: Console) -> Scoring:
    with Stage(console, "loading the scorers"):
        return load_scoring(section)


def _network(order: MetricsOrder, section: ScorersSection, console: Console) -> InceptionNetwork:
    device = resolve_device(section.device, key="scorers.device")
    with Stage(console, "loading InceptionV3"):
        return load_inception(order.inception, device)


def _by_inception(
    names: Sequence[str],
    network: InceptionNetwork,
    folder: ImageFolder,
    reference: ImageFolder | None,
    console: Console,
) -> dict[str, dict[str, float | int]]:
    other = reference if NEED_REFERENCE & set(names) else None
    theirs = None if other is None else other.images
    with Stage(console, "images through InceptionV3", _total(folder, other)) as stage:
        found = inception_metrics(names, folder.images, theirs, network=network, advance=stage.advance)
    return {name: _entry(value, folder) for name, value in found.items()}


def known_metrics(scoring: Scoring) -> tuple[str, ...]:
    """Everything that may be asked for."""
    return tuple(sorted({*METRICS, *INCEPTION_METRICS, *scoring.names}))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    scores: Mapping[str, NDArray[np.float32]]
    clip: NDArray[np.float32]
    dino: NDArray[np.float32]


def _look(scoring: Scoring, folder: ImageFolder, prompts: Sequence[str], names: Sequence[str], stage: Stage) -> _Seen:
    """Scores and embeddings of a folder, some images at a time, so that there is progress to show."""
    replies: list[ScoreReply] = []
    for start in range(0, len(folder.names), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        images = folder.images[some]
        replies.append(scoring.score(ScoreRequest(images=images, prompts=tuple(prompts[some]), names=tuple(names))))
        stage.advance(len(images))
    errors = [error for reply in replies for error in reply.errors]
    failed = [f"{name}: {error}" for name, error in zip(folder.names, errors, strict=True) if error and names]
    if len(failed) == len(folder.names):
        raise EvaluationError(f"No image of {folder.path} has a score; the first one: {failed[0]}")
    values = np.concatenate([reply.values for reply in replies])
    return _Seen(
        scores={name: values[:, row] for row, name in enumerate(replies[0].names)},
        clip=np.concatenate([reply.clip_embedding for reply in replies]),
        dino=np.concatenate([reply.dino_embedding for reply in replies]),
    )


def _inputs(folder: ImageFolder, reference: ImageFolder | None, ours: _Seen, theirs: _Seen | None) -> MetricInputs:
    return MetricInputs(
        images=folder.images,
        dino=ours.dino,
        clip=ours.clip,
        full_images=None if reference is None else reference.images,
        full_dino=None if theirs is None else theirs.dino,
        reference_clip=None if theirs is None else theirs.clip,
    )


def _check_reference(order: MetricsOrder) -> None:
    """Refuse a metric that compares with nothing, before anything is read or scored."""
    comparing = NEED_REFERENCE | {name for name, metric in METRICS.items() if _OF_REFERENCE & set(metric.needs)}
    for name in order.metrics:
        if name in comparing and order.reference is None:
            raise EvaluationError(
                f"{name} can't be computed without --reference FOLDER, images to compare with; give it, or leave "
                f"{name} out."
            )


def _check_names(names: Sequence[str], scoring: Scoring) -> None:
    known = known_metrics(scoring)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise EvaluationError(
            f"There is no metric called {unknown[0]!r}: choose from {', '.join(known)}.", metric=unknown[0], known=known
        )


def _mean(values: NDArray[np.float32]) -> dict[str, float | int]:
    good = values[np.isfinite(values)]
    return {"value": float(good.mean()), "count": len(good), "dropped": len(values) - len(good)}


def _entry(value: float, folder: ImageFolder) -> dict[str, float | int]:
    return {"value": value, "count": len(folder.names)}


def _total(folder: ImageFolder, reference: ImageFolder | None) -> int:
    return len(folder.names) + (0 if reference is None else len(reference.names))
