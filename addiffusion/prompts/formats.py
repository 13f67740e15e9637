"""Files of prompts, each in the form its authors publish it in.

    text            one prompt per line; blank lines and lines that begin with # are skipped
    coco            COCO captions: JSON with ``annotations`` of ``image_id`` and ``caption``
    drawbench       DrawBench: CSV with the columns ``Prompts`` and ``Category``
    parti           PartiPrompts: TSV with the columns ``Prompt``, ``Category``, ``Challenge``, ``Note``
    geneval         GenEval: JSON lines with ``tag`` and ``prompt``
    t2i_compbench   T2I-CompBench: a folder of ``<category>_train.txt`` and ``<category>_val.txt``

Tiers come from the set's own labels where they speak of difficulty (PartiPrompts' challenge, GenEval's tag,
T2I-CompBench's category), otherwise from ``addiffusion.prompts.complexity``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from addiffusion.errors import PromptError
from addiffusion.prompts.complexity import complexity

FileFormat: TypeAlias = Literal["text", "coco", "drawbench", "parti", "geneval", "t2i_compbench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEntry:
    """One prompt of a file."""

    text: str
    tier: int
    family: str
    """Entries of one family (captions of one image) stay in one split."""


PARTI_TIERS: Final[Mapping[str, int]] = {
    "Basic": 1, "Simple Detail": 1, "Style & Format": 2, "Imagination": 2, "Perspective": 2, "Quantity": 2,
    "Fine-grained Detail": 3, "Complex": 3, "Properties & Positioning": 3, "Linguistic Structures": 3,
    "Writing & Symbols": 3,
}  # fmt: skip
"""Tier by PartiPrompts' column ``Challenge``."""
GENEVAL_TIERS: Final[Mapping[str, int]] = {
    "single_object": 1, "colors": 1, "two_object": 2, "counting": 2, "position": 3, "color_attr": 3,
}  # fmt: skip
"""Tier by GenEval's ``tag``."""
COMPBENCH_TIERS: Final[Mapping[str, int]] = {
    "color": 2, "shape": 2, "texture": 2, "spatial": 2, "non_spatial": 2, "numeracy": 2, "3d_spatial": 3, "complex": 3,
}  # fmt: skip
"""Tier by T2I-CompBench's category: all of its prompts bind attributes of several objects."""
_SUFFIXES: Final[Mapping[str, FileFormat]] = {
    ".json": "coco", ".jsonl": "geneval", ".csv": "drawbench", ".tsv": "parti",
}  # fmt: skip
_COMPBENCH_FILE: Final = re.compile(r"(?P<category>.+)_(?:train|val)\.txt")


def read_entries(path: Path, form: FileFormat | Literal["auto"]) -> list[PromptEntry]:
    """Every different prompt of a file (or folder) in its order.

    Raises:
        PromptError: it can't be read, or is not of that form; the message names the line or field.
    """
    chosen = _detect(path) if form == "auto" else form
    entries = {entry.text: entry for entry in reversed(list(_READERS[chosen](path))) if entry.text}
    return list(reversed(entries.values()))


def _detect(path: Path) -> FileFormat:
    """By the ending of the name, which the published files keep."""
    return "t2i_compbench" if path.is_dir() else _SUFFIXES.get(path.suffix.lower(), "text")


def _measured(text: str, *, family: str | None = None) -> PromptEntry:
    return PromptEntry(text=text, tier=complexity(text).tier, family=text if family is None else family)


def _labelled(text: str, label: Any, tiers: Mapping[str, int]) -> PromptEntry:
    """The tier that the label stands for; a label nobody knows leaves the measure."""
    measured = _measured(text)
    return PromptEntry(text=text, tier=tiers.get(str(label), measured.tier), family=text)


def _text(path: Path) -> Iterator[PromptEntry]:
    return (_measured(line) for _, line in _lines(path) if line and not line.startswith("#"))


def _coco(path: Path) -> Iterator[PromptEntry]:
    tree = _json(path, "\n".join(line for _, line in _lines(path)), "The file")
    annotations = tree.get("annotations")
    if not isinstance(annotations, list):
        raise _wrong(path, "coco", "it has no list `annotations`")
    for number, annotation in enumerate(cast("list[Any]", annotations), start=1):
        caption = _field(path, "coco", annotation, "caption", f"annotation {number}")
        yield _measured(caption, family=f"image {annotation.get('image_id', number)}")


def _drawbench(path: Path) -> Iterator[PromptEntry]:
    return (_measured(row["Prompts"].strip()) for row in _table(path, "drawbench", ("Prompts",), ","))


def _parti(path: Path) -> Iterator[PromptEntry]:
    rows = _table(path, "parti", ("Prompt", "Challenge"), "\t")
    return (_labelled(row["Prompt"].strip(), row["Challenge"], PARTI_TIERS) for row in rows)


def _geneval(path: Path) -> Iterator[PromptEntry]:
    for number, line in _lines(path):
        if line:
            item = _json(path, line, f"Line {number}")
            text = _field(path, "geneval", item, "prompt", f"line {number}")
            yield _labelled(text, item.get("tag"), GENEVAL_TIERS)


def _compbench(path: Path) -> Iterator[PromptEntry]:
    found = [(file, _COMPBENCH_FILE.fullmatch(file.name)) for file in (sorted(path.glob("*.txt")) or [path])]
    files = [(file, match["category"]) for file, match in found if match is not None]
    if not files:
        raise _wrong(path, "t2i_compbench", "it holds no file named <category>_train.txt or <category>_val.txt")
    for file, category in files:
        yield from (_labelled(line, category, COMPBENCH_TIERS) for _, line in _lines(file) if line)


_READERS: Final[Mapping[FileFormat, Callable[[Path], Iterator[PromptEntry]]]] = {
    "text": _text,
    "coco": _coco,
    "drawbench": _drawbench,
    "parti": _parti,
    "geneval": _geneval,
    "t2i_compbench": _compbench,
}


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, stripped."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PromptError(
            f"The prompt file {path} can't be read ({error.strerror}); set prompts.source to a file of prompts, "
            "or to 'embedded'.",
            path=str(path),
        ) from error
    return [(number, _decode(path, number, line)) for number, line in enumerate(raw.split(b"\n"), start=1)]


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").removeprefix("\ufeff").strip(" \r\n\x0b\x0c")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"Line {number} of the prompt file {path} is not UTF-8 (byte {error.start + 1} of the line); "
            "save the file as UTF-8.",
            path=str(path),
            line=number,
        ) from error


def _table(path: Path, form: FileFormat, columns: tuple[str, ...], delimiter: str) -> Iterator[dict[str, str]]:
    rows = csv.DictReader([line for _, line in _lines(path)], delimiter=delimiter)
    missing = [column for column in columns if column not in (rows.fieldnames or ())]
    if missing:
        raise _wrong(path, form, f"its first line names no column {' and '.join(missing)}")
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise _wrong(path, form, f"row {number} has too few columns")
        yield row


def _json(path: Path, text: str, where: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{where} of {path} is not JSON ({error}).", path=str(path)) from error
    if not isinstance(tree, dict):
        raise PromptError(f"{where} of {path} is no JSON object.", path=str(path))
    return cast("dict[str, Any]", tree)


def _field(path: Path, form: FileFormat, item: Any, name: str, where: str) -> str:
    value = cast("dict[str, Any]", item).get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise _wrong(path, form, f"{where} has no text `{name}`")
    return " ".join(value.split())


def _wrong(path: Path, form: FileFormat, reason: str) -> PromptError:
    return PromptError(
        f"{path} can't be read as prompts.format={form}: {reason}. Set prompts.format to what the file is.",
        path=str(path),
        format=form,
    )
