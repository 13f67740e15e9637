"""`addiffusion score`: what every scorer says of some image files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from addiffusion.configuration.files import load_config
from addiffusion.configuration.shown import quoted
from addiffusion.errors import UsageError
from addiffusion.images import read_image
from addiffusion.prompts.text import checked_prompt
from addiffusion.records import SCORE_NAMES, ScoreRequest
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.factory import load_suite
from addiffusion.scorers.suite import ScorerSuite
from evaluation.tables import Table
from launch.runtime.console import UNSEEN, Stage

Row = tuple[dict[str, float | None], dict[str, str]]
"""Scores of an image, and why some are missing, by score name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredFile:
    """One image file and its scores."""

    path: Path
    scores: Mapping[str, float | None]
    """By score name; None where there is none."""
    errors: Mapping[str, str]
    """Why there is none, by score name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A finished order."""

    prompt: str
    specs: tuple[ScorerSpec, ...]
    files: tuple[ScoredFile, ...]


def score_files(
    paths: Sequence[Path], prompt: str, *, files: Sequence[Path], overrides: Sequence[str], console: Console = UNSEEN
) -> Scored:
    """Score image files.

    Args:
        paths: image files.
        prompt: what all of them should show.
        files: YAML over the shipped configuration.
        overrides: ``key=value``, over the files.
        console: where it is shown how many have been scored.

    Raises:
        UsageError: a file is no image the scorers take, the prompt is no text, or the scorers can't be loaded as
            configured.
    """
    checked_prompt(prompt, "The prompt")
    images = [read_image(path) for path in paths]
    section = load_config(files, overrides).scorers
    section = section.model_copy(update={"batch_images": min(section.batch_images, len(images))})  # nothing is padded
    with Stage(console, "loading the scorers"):
        suite = load_suite(section)
    for path, image in zip(paths, images, strict=True):
        _check_size(path, image, suite)
    rows: list[Row] = []
    size = 1 if _mixed(images) else section.batch_images
    with Stage(console, "images", len(images), headline="") as stage:
        for start in range(0, len(images), size):
            rows += _batched(suite, images[start : start + size], prompt)
            stage.reach(len(rows))
    specs = tuple(scorer.spec for scorer in suite.scorers.values())
    return Scored(
        prompt=prompt,
        specs=specs,
        files=tuple(
            ScoredFile(path=path, scores=scores, errors=errors)
            for path, (scores, errors) in zip(paths, rows, strict=True)
        ),
    )


def table(scored: Scored, *, ascii_only: bool = False) -> Table:
    """One row per file, one column per score; what is missing is explained below."""
    up, down = ("", " (less is better)") if ascii_only else (" ↑", " ↓")
    missing = dict.fromkeys(reason for file in scored.files for reason in file.errors.values())
    shown = Table(title=Text(quoted(scored.prompt)), caption="\n".join(missing) or None, caption_justify="left")
    shown.add_column("image", overflow="fold")
    for spec in scored.specs:
        shown.add_column(f"{spec.name}{up if spec.higher_is_better else down}\n{spec.unit}", justify="right")
    for file in scored.files:
        values = (file.scores[spec.name] for spec in scored.specs)
        shown.add_row(Text(str(file.path)), *("-" if value is None else f"{value:.3f}" for value in values))
    return shown


def to_json(scored: Scored) -> dict[str, Any]:
    """The same for programs."""
    return {
        "prompt": scored.prompt,
        "scores": [
            {"name": spec.name, "unit": spec.unit, "higher_is_better": spec.higher_is_better} for spec in scored.specs
        ],
        "images": [
            {"path": str(file.path), "scores": dict(file.scores), "errors": dict(file.errors)} for file in scored.files
        ],
    }


def _mixed(images: Sequence[NDArray[np.uint8]]) -> bool:
    return len({image.shape for image in images}) > 1


def _check_size(path: Path, image: NDArray[np.uint8], suite: ScorerSuite) -> None:
    height, width, _ = image.shape
    if suite.image_size is not None and (height, width) != (suite.image_size, suite.image_size):
        raise UsageError(
            f"{path} is {width} x {height} pixels, but the embedded scorers judge {suite.image_size} x "
            f"{suite.image_size} ones: set scorers.kind=pretrained for other images.",
            path=str(path),
        )


def _batched(suite: ScorerSuite, images: Sequence[NDArray[np.uint8]], prompt: str) -> list[Row]:
    """One request for the scores of a reward, one for each further: then an error hides no other score."""
    rows: list[Row] = [({}, {}) for _ in images]
    for names in _groups(suite.names):
        request = ScoreRequest(images=np.stack(images), prompts=(prompt,) * len(images), names=names, embeddings=())
        reply = suite.score(request)
        for (scores, errors), values, error in zip(rows, reply.values, reply.errors, strict=True):
            scores.update(
                {name: float(value) if error is None else None for name, value in zip(names, values, strict=True)}
            )
            errors.update({} if error is None else dict.fromkeys(names, error))
    return rows


def _groups(names: Iterable[str]) -> list[tuple[str, ...]]:
    known = tuple(names)
    together = tuple(name for name in known if name in SCORE_NAMES)
    return [together, *((name,) for name in known if name not in SCORE_NAMES)]
