"""Files with the weights of full-size scorers: finding them, and reading them without executing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers.utils.hub import cached_file  # pyright: ignore[reportUnknownVariableType] - a bare PathLike

from addiffusion.errors import WeightsError
from addiffusion.weights import gist, misfit, read_tensors

_FILE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".safetensors", ".txt", ".json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A file that a scorer needs."""

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
            raise self.missing(source, f"the hub does not give it ({gist(error)})") from error
        if found is None:
            raise self.missing(source, f"the hub repository has no {filename or self.filename}")
        return Path(found)

    def missing(self, source: str, reason: str) -> WeightsError:
        """The error for weights that are not there."""
        return WeightsError(
            f"{self.key}={source} does not give {self.filename}: {reason}. Get it from {self.origin} and set "
            f"{self.key} to the file, or set scorers.kind=embedded.",
            key=self.key,
            source=source,
            filename=self.filename,
        )

    def misfit(self, path: Path | str, reason: str | Exception) -> WeightsError:
        """The error for weights that are something else, damaged or incomplete."""
        reason = gist(reason) if isinstance(reason, Exception) else reason
        return WeightsError(
            f"{path}, which {self.key} names, can't be loaded as {self.filename} ({reason}): get it again "
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
            return read_tensors(path)
        except WeightsError as error:
            raise self.misfit(path, error.facts["reason"]) from error

    def fill(self, model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
        """Give ``model`` exactly these tensors.

        Raises:
            WeightsError: names or shapes do not fit.
        """
        reason = misfit(model, tensors)
        if reason is not None:
            raise self.misfit(path, reason)
        model.load_state_dict(tensors, strict=False)


def looks_local(source: str) -> bool:
    """Whether ``source`` can only mean a path: hub repositories are ``owner/name`` or ``owner/name:file``."""
    starts = source.startswith((".", "/", "~"))
    return starts or (":" not in source and Path(source).suffix in _FILE_SUFFIXES) or source.count("/") > 1
