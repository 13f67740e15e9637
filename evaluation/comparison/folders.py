"""Images in a folder, and the prompts they were made for. Everything wrong is said with the file's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import EvaluationError
from addiffusion.images import read_image
from addiffusion.prompts.text import numbered_lines
from evaluation.comparison.results import read_results

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFolder:
    """The images of a folder in the order of their names, all of one size."""

    path: Path
    names: tuple[str, ...]
    images: NDArray[np.uint8]
    """(n, H, W, 3)."""


def load_folder(path: Path) -> ImageFolder:
    """Every image file of a folder (not of folders in it).

    Raises:
        EvaluationError: no folder, no image in it, a damaged image, or images of different sizes.
    """
    if not path.is_dir():
        raise EvaluationError(f"{path} is no folder: give a folder of images.", path=str(path))
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise EvaluationError(
            f"{path} holds no images: none of its files ends in {', '.join(SUFFIXES)}.", path=str(path)
        )
    images = [read_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise EvaluationError(
                f"{file} is {_size(image)} pixels and {files[0].name} {_size(images[0])}: bring all images of {path} "
                "to one size first.",
                path=str(file),
            )
    return ImageFolder(path=path, names=tuple(file.name for file in files), images=np.stack(images))


def check_same_names(folder: ImageFolder, other: ImageFolder) -> None:
    """Refuse two folders that don't hold the same prompts and seeds, by file name.

    Raises:
        EvaluationError: a name is in one of them only.
    """
    missing = sorted(set(folder.names) ^ set(other.names))
    if missing:
        lacking = other.path if missing[0] in folder.names else folder.path
        raise EvaluationError(
            f"{folder.path} holds {len(folder.names)} images and {other.path} {len(other.names)}, and {len(missing)} "
            f"names are in one of them only; {lacking} has no {missing[0]}. Images are compared by name: leave out, or "
            "draw, what is missing.",
            missing=missing,
        )


def prompts_of(folder: ImageFolder, file: Path | None) -> tuple[str, ...]:
    """The prompt of each image: a line of ``file`` each, or what the comparison says that the folder belongs to.

    Raises:
        EvaluationError: there are none, or not as many as images.
        PromptError: ``file`` can't be read, or is not UTF-8.
    """
    if file is not None:
        return _lines(file, folder)
    table = folder.path.parent.parent / "results.parquet"
    if not table.is_file():
        raise EvaluationError(
            f"Nothing says what the images of {folder.path} should show: give --prompts FILE with one prompt per "
            "image, in the order of file names."
        )
    known = {f"{row.prompt_id:05d}-{row.repeat}.png": row.prompt for row in read_results(table)}
    unknown = [name for name in folder.names if name not in known]
    if unknown:
        raise EvaluationError(f"{table} knows no prompt of {unknown[0]} (and {len(unknown) - 1} more images).")
    return tuple(known[name] for name in folder.names)


def _lines(file: Path, folder: ImageFolder) -> tuple[str, ...]:
    prompts = [line for _, line in numbered_lines(file) if line]
    if len(prompts) != len(folder.names):
        raise EvaluationError(
            f"{file} holds {len(prompts)} prompts and {folder.path} {len(folder.names)} images: give one line per "
            "image, in the order of file names.",
            prompts=len(prompts),
            images=len(folder.names),
        )
    return tuple(prompts)


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
