"""`addiffusion metrics`: a folder of images, measured by itself, against prompts, and against another folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from addiffusion.errors import EvaluationError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.factory import load_scoring
from evaluation.comparison.folders import ImageFolder, check_same_names, load_folder, prompts_of
from evaluation.metrics.fid import fid
from evaluation.metrics.registry import METRICS, Material, Measured, measure
from launch.comparing.orders import MetricsOrder
from launch.configuration.files import load_config
from launch.runtime.console import Stage

FD_DINO = "fd_dino"
_AT_ONCE = 64
"""Images in a request to the scorers."""
_FROM_IMAGES = ("images", "dino", "clip")
_FROM_REFERENCE = ("full_images", "full_dino", "reference_clip")
_FROM_FEATURES = ("inception", "reference_inception", "class_probabilities")


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
    features = _features(order.features)
    _check_given(order, features)
    folder = load_folder(order.images)
    reference = None if order.reference is None else load_folder(order.reference)
    console = console or Console(stderr=True)
    if scoring is None:
        with Stage(console, "loading the scorers"):
            scoring = load_scoring(load_config([], overrides).scorers)
    _check_names(order.metrics, scoring)
    scores = [name for name in order.metrics if name in scoring.names]
    sets = [name for name in order.metrics if name in METRICS]
    if any(name in ("ssim", "dino_similarity") for name in sets) and reference is not None:
        check_same_names(folder, reference)
    prompts = prompts_of(folder, order.prompts) if scores else ("",) * len(folder.names)
    with Stage(console, "images", len(folder.names) + (0 if reference is None else len(reference.names))) as stage:
        ours = _look(scoring, folder, prompts, scores, stage)
        theirs = None if reference is None else _look(scoring, reference, ("",) * len(reference.names), (), stage)
    found = {name: _mean(ours.scores[name]) for name in scores}
    material = _material(folder, reference, ours, theirs, features)
    found |= {name: _entry(one, len(folder.names)) for name, one in measure(sets, material).items()}
    if FD_DINO in order.metrics:
        assert theirs is not None
        found[FD_DINO] = {"value": fid(ours.dino, theirs.dino), "count": len(folder.names)}
    return found


def known_metrics(scoring: Scoring) -> tuple[str, ...]:
    """Everything that may be asked for."""
    return tuple(sorted({*METRICS, FD_DINO, *scoring.names}))


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


def _material(
    folder: ImageFolder, reference: ImageFolder | None, ours: _Seen, theirs: _Seen | None, features: Mapping[str, Any]
) -> Material:
    return Material(
        images=folder.images,
        dino=ours.dino,
        clip=ours.clip,
        full_images=None if reference is None else reference.images,
        full_dino=None if theirs is None else theirs.dino,
        reference_clip=None if theirs is None else theirs.clip,
        **features,
    )


def _features(path: Path | None) -> dict[str, NDArray[Any]]:
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in _FROM_FEATURES if name in file}
    except (OSError, ValueError, EOFError) as error:
        raise EvaluationError(
            f"The features {path} can't be read ({error}): give an .npz file with {', '.join(_FROM_FEATURES)}.",
            path=str(path),
        ) from error


def _check_given(order: MetricsOrder, features: Mapping[str, Any]) -> None:
    """Refuse a metric whose option is missing, before anything is read or scored."""
    given = {*_FROM_IMAGES, *features, *(_FROM_REFERENCE if order.reference is not None else ())}
    needs = {FD_DINO: ("full_dino",)} | {name: metric.needs for name, metric in METRICS.items()}
    for name in order.metrics:
        missing = [need for need in needs.get(name, ()) if need not in given]
        if missing:
            option = (
                f"--features FILE, an .npz file with {' and '.join(missing)}"
                if missing[0] in _FROM_FEATURES
                else "--reference FOLDER, images to compare with"
            )
            raise EvaluationError(f"{name} can't be computed without {option}; give it, or leave {name} out.")


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


def _entry(measured: Measured, count: int) -> dict[str, float | int]:
    return {"value": measured.value, "count": count}
