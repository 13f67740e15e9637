"""What contestants drew, image by image, on disk: one Parquet part per contestant and range of cases, images as PNG.

A part is whole or not there, and its rows say which cases it holds, so a comparison that was killed goes on with the
cases that are missing, whatever the size of its chunks was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from addiffusion.errors import ArchiveError, EvaluationError
from addiffusion.files import make_folder, whole_file, write_text
from addiffusion.images import read_image, write_png
from evaluation.comparison.contestants import EvalCase

FORMAT_KEY = b"addiffusion.results"
FORMAT_VERSION = b"1"
_FLOATS, _INTS = pa.list_(pa.float32()), pa.list_(pa.int16())
_BASE = (
    pa.field("contestant", pa.string(), nullable=False),
    pa.field("index", pa.int32(), nullable=False),
    pa.field("prompt_id", pa.int64()),
    pa.field("prompt", pa.string()),
    pa.field("tier", pa.int8()),
    pa.field("repeat", pa.int16()),
    pa.field("seed", pa.int64()),
    pa.field("error", pa.string()),
    pa.field("nfe", pa.int32()),
    pa.field("network_evals", pa.int32()),
    pa.field("seconds", pa.float64()),
    pa.field("seconds_full_queue", pa.float64()),
    pa.field("latency_s", pa.float64()),
    pa.field("actions", _INTS),
    pa.field("steps", _INTS),
    pa.field("image", pa.string()),
    pa.field("clip_embedding", _FLOATS),
    pa.field("dino_embedding", _FLOATS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """One image of one contestant, or why there is none."""

    contestant: str
    index: int
    """Of the case; equal indices are equal prompts and seeds."""
    prompt_id: int
    prompt: str
    tier: int
    repeat: int
    seed: int
    error: str | None = None
    """Set: the image could not be drawn, and every number is NaN or 0."""
    nfe: int = 0
    network_evals: int = 0
    seconds: float = float("nan")
    """Its share of the wall clock of its chunk: policy, observation, decode and one scoring included, and the chunk's
    start and nearly empty end (``evaluation.seconds``)."""
    seconds_full_queue: float = float("nan")
    """What its passes take while other images wait, by the pace of its chunk before the queue was empty; NaN where
    none waited, and in results of before there was such a column."""
    latency_s: float = float("nan")
    """Wall clock from its first pass to its final score, beside its neighbours in the batch."""
    actions: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    """Schedule index of each action."""
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    """By score name; NaN where there is none."""
    clip_embedding: tuple[float, ...] = ()
    dino_embedding: tuple[float, ...] = ()

    @classmethod
    def of(cls, contestant: str, case: EvalCase, **figures: Any) -> Self:
        """That of a case; ``figures`` are the fields from ``error`` on."""
        return cls(
            contestant=contestant,
            index=case.index,
            prompt_id=case.prompt.prompt_id,
            prompt=case.prompt.text,
            tier=case.prompt.tier,
            repeat=case.repeat,
            seed=case.seed,
            **figures,
        )


class ResultStore:
    """The folder of one comparison: ``parts/``, ``images/`` and, at the end, ``results.parquet``."""

    def __init__(self, path: Path, *, lenders: Sequence[Path] = ()) -> None:
        """The folder of one comparison.

        Args:
            path: of it.
            lenders: folders of comparisons of the same model, prompts and seeds under other policies, whose images of
                contestants that no policy decides for are taken over instead of drawn again.
        """
        self.path, self._lenders = path, lenders

    def drawn(self, contestant: str) -> set[int]:
        """Indices of the cases that a contestant's parts hold, whoever wrote them in whatever pieces.

        Raises:
            ArchiveError: a part can't be read.
        """
        parts = [_read_table(path, ["index"]) for path in self._parts(contestant)]
        return {index for part in parts for index in part.column("index").to_pylist()}

    def claim(self, contestant: str, spec: Mapping[str, Any]) -> None:
        """Say what decides about a contestant's images.

        Raises:
            ArchiveError: the folder holds images of a contestant of this name that were drawn otherwise.
        """
        path = self.path / "parts" / contestant / "contestant.json"
        text = json.dumps(spec, indent=1, sort_keys=True)
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise ArchiveError(
                f"{path.parent} holds images of {contestant} that were drawn with other settings: give another folder, "
                "or delete this one.",
                path=str(path.parent),
            )
        if not path.is_file():
            if spec["policy"] is None:
                self._borrow(contestant, text)
            make_folder(path.parent)
            write_text(path, text)

    def write(self, results: Sequence[ImageResult], images: Mapping[int, NDArray[np.uint8]]) -> None:
        """Keep some cases of one contestant: its images (by case index) first, then the part that vouches for them."""
        contestant = results[0].contestant
        for result in results:
            if result.index in images:
                write_png(self.image_path(contestant, result), images[result.index])
        first, last = results[0].index, results[-1].index
        _write(self.path / "parts" / contestant / f"{first:06d}-{last:06d}.parquet", results, self.path, self)

    def read(self, contestants: Iterable[str]) -> dict[str, list[ImageResult]]:
        """All parts of contestants, in the order of cases; of a case that two parts hold, the first part's.

        Raises:
            ArchiveError: a part can't be read, or something else wrote it.
        """
        return {name: self._read_contestant(name) for name in contestants}

    def join(self, contestants: Sequence[str]) -> Path:
        """Write every part of ``contestants`` into ``results.parquet``."""
        rows = [result for results in self.read(contestants).values() for result in results]
        path = self.path / "results.parquet"
        _write(path, rows, self.path, self)
        return path

    def image_path(self, contestant: str, result: ImageResult) -> Path:
        """Where the PNG of an image lies."""
        return self.path / "images" / contestant / f"{result.prompt_id:05d}-{result.repeat}.png"

    def image(self, result: ImageResult) -> NDArray[np.uint8]:
        """(H, W, 3).

        Raises:
            ArchiveError: the PNG is missing or damaged.
        """
        path = self.image_path(result.contestant, result)
        try:
            return read_image(path)
        except EvaluationError as error:
            raise ArchiveError(
                f"{error.message} To have its images drawn again, delete {self.path / 'parts' / result.contestant}.",
                path=str(path),
            ) from error

    def _borrow(self, contestant: str, text: str) -> None:
        """Take over what a lender has drawn by the same description: images, then the parts that vouch for them."""
        for lender in self._lenders:
            said = lender / "parts" / contestant / "contestant.json"
            if said.is_file() and said.read_text(encoding="utf-8") == text:
                for part in ("images", "parts"):
                    if (lender / part / contestant).is_dir():
                        shutil.copytree(lender / part / contestant, self.path / part / contestant, dirs_exist_ok=True)
                return

    def _parts(self, contestant: str) -> list[Path]:
        return sorted((self.path / "parts" / contestant).glob("*.parquet"))

    def _read_contestant(self, name: str) -> list[ImageResult]:
        rows = [result for path in self._parts(name) for result in read_results(path)]
        once = {result.index: result for result in reversed(rows)}
        return [once[index] for index in sorted(once)]


def read_results(path: Path) -> list[ImageResult]:
    """The rows of a part or of ``results.parquet``.

    Raises:
        ArchiveError: the file can't be read, or something else wrote it.
    """
    return [_from_row(row) for row in _read_table(path).to_pylist()]


def _read_table(path: Path, columns: list[str] | None = None) -> Any:
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(
            f"{path} can't be read as a Parquet file of results ({error}); delete it to have its images drawn again.",
            path=str(path),
        ) from error
    if (table.schema.metadata or {}).get(FORMAT_KEY) != FORMAT_VERSION:
        raise ArchiveError(f"{path} is no file of results of format version {FORMAT_VERSION.decode()}.", path=str(path))
    return table


def _write(path: Path, results: Sequence[ImageResult], root: Path, store: ResultStore) -> None:
    names = sorted({name for result in results for name in result.scores})
    fields = [*_BASE, *(pa.field(f"score_{name}", pa.float64()) for name in names)]
    schema = pa.schema(fields, metadata={FORMAT_KEY: FORMAT_VERSION, b"scores": json.dumps(names).encode()})
    rows = [
        _to_row(result, names, str(store.image_path(result.contestant, result).relative_to(root))) for result in results
    ]
    make_folder(path.parent)
    with whole_file(path) as draft:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), draft, compression="zstd")


def _to_row(result: ImageResult, names: Sequence[str], image: str) -> dict[str, Any]:
    plain = {
        field.name: getattr(result, field.name)
        for field in _BASE
        if field.name not in ("image", "actions", "steps", "clip_embedding", "dino_embedding")
    }
    lists = {name: list(getattr(result, name)) for name in ("actions", "steps", "clip_embedding", "dino_embedding")}
    scores = {f"score_{name}": result.scores.get(name, float("nan")) for name in names}
    return {**plain, **lists, **scores, "image": None if result.error else image}


def _from_row(row: Mapping[str, Any]) -> ImageResult:
    lists: dict[str, Any] = {
        name: tuple(row[name]) for name in ("actions", "steps", "clip_embedding", "dino_embedding")
    }
    scores = {name.removeprefix("score_"): value for name, value in row.items() if name.startswith("score_")}
    plain: dict[str, Any] = {
        name: row[name] for name in (field.name for field in _BASE) if name in row and name not in {"image", *lists}
    }
    return ImageResult(**plain, **lists, scores=scores)
