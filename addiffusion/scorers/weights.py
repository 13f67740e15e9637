"""Where the weights of full-size scorers are, and one way to read them: never executing what a file holds."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from addiffusion.errors import WeightsError

LOAD_FAILURES = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError)
"""What the libraries raise on files that are missing, damaged, of another model, or more than tensors."""
_FILE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".safetensors", ".txt", ".json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A file that a scorer can't do without."""

    key: str
    """Configuration key that says where it is."""
    filename: str
    """Its name in a folder or hub repository."""
    origin: str
    """Where to get it, in words."""

    def find(self, source: str) -> Path:
        """The file ``source`` means: itself, one in that folder, or one in that hub repository.

        Raises:
            WeightsError: there is none; the sentence names the file and where to get it.
        """
        path = Path(source)
        if path.is_dir():
            path = path / self.filename
        if path.is_file():
            return path
        if looks_local(source):
            raise self.missing(source, "nothing lies there")
        repository, _, filename = source.partition(":")
        try:
            found = cached_file(repository, filename or self.filename)
        except (OSError, ValueError) as error:
            raise self.missing(source, f"the hub does not give it ({first_line(error)})") from error
        if found is None:
            raise self.missing(source, f"the hub repository has no {filename or self.filename}")
        return Path(found)

    def missing(self, source: str, reason: str) -> WeightsError:
        """One clear error for weights that are not there."""
        return WeightsError(
            f"{self.key}={source} does not give {self.filename}: {reason}. Get it from {self.origin} and set "
            f"{self.key} to the file, or set scorers.kind=embedded.",
            key=self.key,
            source=source,
            filename=self.filename,
        )

    def misfit(self, path: Path | str, error: Exception) -> WeightsError:
        """One clear error for weights that are something else."""
        return WeightsError(
            f"{path}, which {self.key} names, can't be loaded as {self.filename} ({first_line(error)}): get it again "
            f"from {self.origin}.",
            key=self.key,
            source=str(path),
            filename=self.filename,
        )

    def tensors(self, path: Path) -> dict[str, Tensor]:
        """The tensors in ``path``; a checkpoint's own ``state_dict`` is unwrapped.

        Raises:
            WeightsError: it is no file of plain tensors.
        """
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        except LOAD_FAILURES as error:
            raise self.misfit(path, error) from error
        return content.get("state_dict", content)

    def fill(self, model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
        """Give ``model`` exactly these tensors.

        Raises:
            WeightsError: names or shapes do not fit.
        """
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise self.misfit(path, error) from error


def looks_local(source: str) -> bool:
    """Whether ``source`` can only mean a path: hub repositories are ``owner/name`` or ``owner/name:file``."""
    starts = source.startswith((".", "/", "~"))
    return starts or (":" not in source and Path(source).suffix in _FILE_SUFFIXES) or source.count("/") > 1


def first_line(error: Exception) -> str:
    """The gist of a library's error, for a sentence of our own."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")
