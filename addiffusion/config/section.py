"""What every section of the configuration is, and the types that its values share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_Located = TypeVar("_Located", str, Path)
_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Bytes of one name of a path, and of a whole path, that file systems take."""


class Section(BaseModel):
    """Base of every section: frozen, unknown keys are errors, attribute docstrings become the help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def expanded(path: _Located) -> _Located:
    """``path`` with a ``~`` in front replaced by the home folder it means; a hub id stays as it is.

    Raises:
        ValueError: there is no such user, or no file system takes a path like that.
    """
    text = str(path)
    if "\0" in text:
        raise ValueError("a path has no zero bytes")
    if text.startswith("~"):
        try:
            text = str(Path(text).expanduser())
        except RuntimeError:
            name = text.partition("/")[0]
            raise ValueError(f"{name:.40} is no user's home folder on this machine; write the path out") from None
    encoded = text.encode()
    if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        raise ValueError(f"a path has at most {_LONGEST_PATH} bytes, each name in it at most {_LONGEST_NAME}")
    return type(path)(text)


def _divisible(gpus: float) -> float:
    """Ray shares one GPU among actors, but gives an actor no GPU and a half."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("above 1 it must be a whole number of GPUs")
    return gpus


def _reservable(share: float) -> float:
    if 0 < share < _LEAST_SHARE:
        raise ValueError(f"Ray reserves no less than {_LEAST_SHARE}; give that or 0")
    return share


def _word_off(value: Any) -> Any:
    """YAML 1.1 reads the word off as false."""
    return "off" if value is False else value


_LEAST_SHARE = 0.0001
_MOST_SHARE = 1000

LocalPath = Annotated[Path, AfterValidator(expanded)]
"""A file or folder; ``~`` is expanded, a relative one starts where the command was started."""
Source = Annotated[str, Field(min_length=1), AfterValidator(expanded)]
"""A local file or folder, or a hub repository: `owner/name`, or `owner/name:file` for a file of another name."""
Cpus = Annotated[float, Field(ge=0, le=_MOST_SHARE), AfterValidator(_reservable)]
Gpus = Annotated[float, Field(ge=0, le=_MOST_SHARE), AfterValidator(_reservable), AfterValidator(_divisible)]
OR_OFF = BeforeValidator(_word_off)
"""For choices of which one is `off`."""
