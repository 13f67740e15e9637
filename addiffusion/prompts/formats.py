"""Files of prompts, each in the form its authors publish it in.

    text            one prompt per line; blank lines and lines that begin with # are skipped
    coco            COCO captions: JSON with ``annotations`` of ``image_id`` and ``caption``, or their array alone,
                    as captioners' results are published
    imagereward     ImageReward's benchmark: a JSON array of ``id`` and ``prompt``
    drawbench       DrawBench: CSV with the columns ``Prompts`` and ``Category``; commas, semicolons or tabs between
    parti           PartiPrompts: TSV with the columns ``Prompt``, ``Category``, ``Challenge``, ``Note``; no quoting
    geneval         GenEval: JSON lines with ``tag`` and ``prompt``
    t2i_compbench   T2I-CompBench: a folder of ``<category>_train.txt`` and ``<category>_val.txt``

Tiers come from the set's own labels where they speak of difficulty (PartiPrompts' challenge, GenEval's tag,
T2I-CompBench's category), otherwise from ``addiffusion.prompts.complexity``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from addiffusion.errors import PromptError
from addiffusion.json_object import is_object
from addiffusion.prompts.complexity import complexity
from addiffusion.prompts.tables import csv_rows, tsv_rows
from addiffusion.prompts.text import checked_prompt, numbered_lines

FileFormat: TypeAlias = Literal["text", "coco", "imagereward", "drawbench", "parti", "geneval", "t2i_compbench"]


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
    """By the ending of the name, which the published files keep; an array of prompts is not COCO's."""
    if path.is_dir():
        return "t2i_compbench"
    suffix = path.suffix.lower()
    return "imagereward" if suffix == ".json" and _holds_prompts(path) else _SUFFIXES.get(suffix, "text")


def _holds_prompts(path: Path) -> bool:
    tree = _json(path, _whole(path), "The file")
    first = cast("list[Any]", tree)[0] if isinstance(tree, list) and tree else None
    return is_object(first) and "prompt" in first


def _measured(text: str, *, family: str | None = None) -> PromptEntry:
    return PromptEntry(text=text, tier=complexity(text).tier, family=text if family is None else family)


def _labelled(text: str, label: Any, tiers: Mapping[str, int]) -> PromptEntry:
    """The tier that the label stands for; a label nobody knows leaves the measure."""
    measured = _measured(text)
    return PromptEntry(text=text, tier=tiers.get(str(label), measured.tier), family=text)


def _text(path: Path) -> Iterator[PromptEntry]:
    return (_measured(line) for _, line in numbered_lines(path) if line and not line.startswith("#"))


def _coco(path: Path) -> Iterator[PromptEntry]:
    tree = _json(path, _whole(path), "The file")
    annotations: Any = tree.get("annotations") if is_object(tree) else tree
    if not isinstance(annotations, list):
        raise _wrong(path, "coco", "it is no array and has no list `annotations`")
    for number, annotation in enumerate(cast("list[Any]", annotations), start=1):
        caption = _field(path, "coco", annotation, "caption", f"annotation {number}")
        yield _measured(caption, family=f"image {annotation.get('image_id', number)}")


def _imagereward(path: Path) -> Iterator[PromptEntry]:
    tree = _json(path, _whole(path), "The file")
    if not isinstance(tree, list):
        raise _wrong(path, "imagereward", "it is no array")
    for number, item in enumerate(cast("list[Any]", tree), start=1):
        yield _measured(_field(path, "imagereward", item, "prompt", f"entry {number}"))


def _drawbench(path: Path) -> Iterator[PromptEntry]:
    rows = csv_rows(path, ("Prompts",), partial(_wrong, path, "drawbench"))
    return (_measured(row["Prompts"]) for row in rows)


def _parti(path: Path) -> Iterator[PromptEntry]:
    rows = tsv_rows(path, ("Prompt", "Challenge"), partial(_wrong, path, "parti"))
    return (_labelled(row["Prompt"], row["Challenge"], PARTI_TIERS) for row in rows)


def _geneval(path: Path) -> Iterator[PromptEntry]:
    for number, line in numbered_lines(path):
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
        yield from (_labelled(line, category, COMPBENCH_TIERS) for _, line in numbered_lines(file) if line)


_READERS: Final[Mapping[FileFormat, Callable[[Path], Iterator[PromptEntry]]]] = {
    "text": _text,
    "coco": _coco,
    "imagereward": _imagereward,
    "drawbench": _drawbench,
    "parti": _parti,
    "geneval": _geneval,
    "t2i_compbench": _compbench,
}


def _whole(path: Path) -> str:
    return "\n".join(line for _, line in numbered_lines(path))


def _json(path: Path, text: str, where: str) -> Any:
    """The tree of a JSON text.

    Raises:
        PromptError: it is none, or holds numbers or brackets beyond what Python reads.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{where} of {path} is not JSON ({error}).", path=str(path)) from error


def _field(path: Path, form: FileFormat, item: Any, name: str, where: str) -> str:
    value = cast("dict[str, Any]", item).get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise _wrong(path, form, f"{where} has no text `{name}`")
    return " ".join(checked_prompt(value, f"In {path}, `{name}` of {where}").split())


def _wrong(path: Path, form: FileFormat, reason: str) -> PromptError:
    return PromptError(
        f"{path} can't be read as prompts.format={form}: {reason}. Set prompts.format to what the file is.",
        path=str(path),
        format=form,
    )
