"""``model_index.json``: which parts a folder of a pipeline says it has, held against what the family needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast, get_type_hints

from addiffusion.backbones.model_files import read_object
from addiffusion.backbones.part_files import PIPELINE_ADVICE, PIPELINES, WHOLE, whole_weights
from addiffusion.errors import ConfigError, WeightsError

INDEX: Final = "model_index.json"
KINDS: Final = {name: kind for kind, name in PIPELINES.items()}
"""Class of a pipeline to its ``backbone.kind``."""
_UNUSED: Final = ("safety_checker", "feature_extractor", "image_encoder")
_SPARED: Final = {"text_encoder_3": "tokenizer_3"}
"""SD3 was trained to do without its T5 encoder, the largest of its parts."""
_LIBRARIES: Final = ("diffusers", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The parts of one folder."""

    parts: Mapping[str, Any]
    """Name to class, in the order of the pipeline's arguments."""
    spared: tuple[str, ...]
    """Parts that the folder does without."""


def read_index(folder: Path, pipeline_class: Any, *, named: str) -> Index:
    """The parts of a folder, each a class of the family with a folder of its own.

    Args:
        folder: local.
        pipeline_class: of the family.
        named: key and value of the configuration, for messages.

    Raises:
        ConfigError: it is a pipeline of another class.
        WeightsError: the index can't be read, or a part is missing or of another class.
    """
    content = _content(folder, named)
    _check_class(content.get("_class_name"), pipeline_class.__name__, named)
    unused = unused_parts(pipeline_class)
    expected: dict[str, Any] = {
        name: kind
        for name, kind in get_type_hints(pipeline_class.__init__).items()
        if name not in unused and isinstance(kind, type) and kind is not bool
    }
    spared = _spared(expected, content, folder)
    parts = {
        name: _part(content.get(name), name, kind, folder, named)
        for name, kind in expected.items()
        if name not in spared
    }
    return Index(parts=parts, spared=spared)


def check_folder(folder: Path, pipeline: str, *, named: str) -> None:
    """Refuse a folder of another family, or one that is not whole; of its weights only the headers are read.

    Args:
        folder: local.
        pipeline: class of the family.
        named: key and value of the configuration, for messages.

    Raises:
        ConfigError: it is a pipeline of another class.
        WeightsError: the index is missing or can't be read, or a file of weights is missing or was cut off.
    """
    _check_class(_content(folder, named).get("_class_name"), pipeline, named)
    for part in sorted(filter(Path.is_dir, folder.iterdir())):
        if part.name not in _UNUSED:
            whole_weights(part, part=part.name, named=named)


def unused_parts(pipeline_class: Any) -> tuple[str, ...]:
    """Parts of a class that take no part in drawing an image from a prompt."""
    return tuple(name for name in get_type_hints(pipeline_class.__init__) if name in _UNUSED)


def _spared(expected: Mapping[str, Any], content: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    for name, tokenizer in _SPARED.items():
        absent = not _names_a_class(content.get(name)) or not (folder / name).is_dir()
        if name in expected and absent:
            return name, tokenizer
    return ()


def _content(folder: Path, named: str) -> Mapping[str, Any]:
    try:
        return read_object(folder / INDEX)
    except FileNotFoundError as error:
        raise WeightsError(f"{named} has no {INDEX}: {PIPELINE_ADVICE}.", path=str(folder)) from error


def _check_class(found: Any, expected: str, named: str) -> None:
    if found == expected:
        return
    fix = f"set backbone.kind={KINDS[found]}" if found in KINDS else f"give a folder of a {expected}"
    raise ConfigError(f"{named} holds a {found}, which backbone.kind does not stand for: {fix}.", pipeline=found)


def _part(entry: Any, name: str, expected: Any, folder: Path, named: str) -> Any:
    """The class of one part."""
    if not _names_a_class(entry):
        raise WeightsError(
            f"{named}: its model_index.json says {entry!r} of {name}, where a pair of library and class belongs: "
            f"{WHOLE}.",
            part=name,
        )
    library, class_name = entry
    kind = getattr(import_module(library), class_name, None) if library in _LIBRARIES else None
    kinds = _kinds(name, expected)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise WeightsError(
            f"{named}: its model_index.json has a {library}.{class_name} as {name}, where this family has a "
            f"{kinds[0].__name__}: give a folder of a plain pipeline.",
            part=name,
        )
    if not (folder / name).is_dir():
        raise WeightsError(f"{named} has no folder {name}, which its model_index.json names: {WHOLE}.", part=name)
    return kind


def _names_a_class(entry: Any) -> bool:
    words = cast("list[Any]", entry) if isinstance(entry, list) else []
    return len(words) == 2 and all(isinstance(word, str) for word in words)


def _kinds(name: str, expected: Any) -> tuple[type, ...]:
    """Classes a part may have; solvers are checked by those who step them."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny  # noqa: PLC0415
    from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: PLC0415
    from transformers import PreTrainedTokenizerBase  # noqa: PLC0415

    if name == "scheduler":
        return (SchedulerMixin,)
    if name.startswith("tokenizer"):
        return (PreTrainedTokenizerBase,)
    return (expected, AutoencoderTiny) if name == "vae" else (expected,)
