"""Glossary, code and configuration use the same names, and none of the private ones of old."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from addiffusion import records, rollouts
from addiffusion.config import Config

ROOT = Path(__file__).parents[1]
PACKAGES = ("addiffusion", "rollout_workers", "reward_service", "learner", "evaluation", "serving", "launch")
GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^\| (?!name \||---)(.+?) \| (.+) \|$", GLOSSARY, re.MULTILINE)
WRITTEN = {
    "scene score (soft, strict)": ("scene_soft", "scene_strict"),
    "carried over": ("carried", "carry_over"),
    "stop records": ("stop_records",),
}
"""Names that the glossary writes for readers, as code writes them."""
COMMON = frozenset(
    {"all", "collected", "failed", "frames", "has", "options", "reply", "request", "rollouts", "rule", "status", "stop"}
)
"""English that needs no entry."""
BANNED = frozenset(
    [
        "arrival",
        "course",
        "crew",
        "draft",
        "entry",
        "families",
        "ground",
        "guest",
        "intake",
        "item",
        "joining",
        "judged",
        "kept",
        "lane",
        "looks",
        "material",
        "pay",
        "program",
        "quiet",
        "sight",
        "standings",
        "studio",
        "survey",
        "tenant",
        "visiting",
    ]
)
"""Private nouns that were renamed, as names of classes and modules."""


def words(name: str) -> list[str]:
    """`RewardSection` and `reward_section` alike: reward, section."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


@cache
def trees() -> dict[Path, ast.Module]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def names_of(tree: ast.Module) -> Iterator[str]:
    """Everything a file calls by a name."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Constant(value=str(name)) if name.isidentifier():
                yield name
            case _:
                pass


@cache
def written_in_code() -> frozenset[str]:
    """Names, and the words in them."""
    names = {name for file, tree in trees().items() for name in (*names_of(tree), file.stem)}
    return frozenset(names | {word for name in names for word in words(name)})


@pytest.mark.parametrize("entry", [name for name, _ in ENTRIES])
def test_every_entry_is_a_name_in_the_code(entry: str) -> None:
    written = WRITTEN.get(entry) or re.findall(r"`([^`]+)`", entry) or [entry]
    assert [name for name in written if name not in written_in_code()] == []


def sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield field.annotation
            yield from sections(field.annotation)


def public(module: object) -> list[str]:
    return [
        name
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == getattr(module, "__name__", None) and not name.startswith("_")
    ]


@pytest.mark.parametrize("name", [*public(records), *public(rollouts)])
def test_what_the_parts_exchange_is_made_of_words_of_the_glossary(name: str) -> None:
    assert set(words(name)) <= explained() | COMMON


@pytest.mark.parametrize("section", list(dict.fromkeys(sections(Config))), ids=lambda section: section.__name__)
def test_a_section_is_called_by_its_key(section: type[BaseModel]) -> None:
    """So that whoever knows the configuration knows the class: every key has its meaning beside it."""
    keys = "_".join(key for key, _ in keyed(Config, section))
    stem = section.__name__.removesuffix("Section").removesuffix("Weights") or "weights"
    assert set(words(stem)) <= set(words(keys)) or "".join(words(stem)) in keys.replace("_", "")


def keyed(root: type[BaseModel], wanted: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Keys under which a section stands, those above it included."""
    for key, field in root.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue
        if kind is wanted:
            yield key, kind
        yield from keyed(kind, wanted)


def explained() -> frozenset[str]:
    """Words of the first column, in singular and plural."""
    found = {word for entry, _ in ENTRIES for word in words(entry)}
    return frozenset(found | {f"{word}s" for word in found} | {word.removesuffix("s") for word in found})


def test_private_nouns_do_not_come_back() -> None:
    modules = {file.stem for file in trees()} | {file.parent.name for file in trees()}
    classes = {node.name for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert [name for name in sorted(modules | classes) if "_".join(words(name)) in BANNED] == []
