"""What is wrong with a configuration, in sentences: the key, the value, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from addiffusion.config import Config
from addiffusion.configuration.shown import dotted, shown

_MOST_COMPLAINTS = 12
_WORDS = {"Input should": "it should", "a valid array": "a list", "a valid string": "a text", "an object": "a mapping"}
"""pydantic's words for JSON, and ours."""
RENAMED: Mapping[str, str] = {}
"""Keys of the past, and what they are called now: whoever renames a key adds it here."""
GONE: Mapping[str, str] = {
    "warm_start.entropy_coeff": "a warm start learns by classification, which takes no bonus for undecided decisions"
}
"""Keys of the past that nothing replaces, and why."""


def describe(error: ValidationError, root: type[BaseModel] = Config) -> str:
    """The complaints of ``error`` as one sentence each, joined with semicolons; of very many, the first ones."""
    details = error.errors()
    rest = [f"and {len(details) - _MOST_COMPLAINTS} more"] if len(details) > _MOST_COMPLAINTS else []
    return "; ".join([*(_sentence(detail, root) for detail in details[:_MOST_COMPLAINTS]), *rest]) + "."


def section_of(path: Sequence[int | str], root: type[BaseModel] = Config) -> type[BaseModel] | None:
    """The section of ``root`` that ``path`` leads to, or None where it leads to a value or nowhere."""
    section: type[BaseModel] = root
    for part in path:
        field = section.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        section = field.annotation
    return section


def _sentence(detail: ErrorDetails, root: type[BaseModel]) -> str:
    path, given = detail["loc"], detail["input"]
    key = dotted(path)
    if detail["type"] == "extra_forbidden":
        return _unknown_key(key, path, root)
    section = section_of(path, root)
    if section is not None and detail["type"] == "value_error":
        complaint = _complaint(detail)
        present = ", ".join(_values(section, given, complaint))
        return f"{key}: {complaint} ({present})" if key else f"{complaint} ({present})"
    if section is not None:
        return f"{key} is a section, not a value (given: {shown(given)}); set one of its keys: {_keys(section)}"
    if detail["type"] == "too_short":
        return f"{key} must not be empty"
    return f"{key} can't be {shown(given)}: {_reason(detail)}{_exponent_hint(detail)}"


def _complaint(detail: ErrorDetails) -> str:
    """What a validator of ours said."""
    return str(detail.get("ctx", {}).get("error", detail["msg"]))


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return _complaint(detail)
    reason = detail["msg"]
    for words, ours in _WORDS.items():
        reason = reason.replace(words, ours)
    return reason


def _unknown_key(key: str, path: Sequence[int | str], root: type[BaseModel]) -> str:
    if root is Config and key in RENAMED:
        return f"{key} is called {RENAMED[key]} now: give it there"
    if root is Config and key in GONE:
        return f"{key} is gone: {GONE[key]}; leave it out"
    parent = section_of(path[:-1], root)
    if parent is None:
        return f"unknown key {key}"
    keys = list(parent.model_fields)
    where = f"keys of {dotted(path[:-1])}" if path[:-1] else "top-level keys"
    near = difflib.get_close_matches(str(path[-1])[:100], keys, n=1)
    prefix = "".join(f"{part}." for part in path[:-1])
    elsewhere = _elsewhere(str(path[-1])) if root is Config else ""
    meant = f", did you mean {prefix}{near[0]}?" if near else elsewhere
    return f"unknown key {key}{meant} ({where}: {', '.join(keys)})"


def _elsewhere(name: str) -> str:
    """A hint for a key that exists, but in another section."""
    found = [f"{section}.{name}" for section in Config.model_fields if name in _fields_below(section)]
    return f", did you mean {' or '.join(found)}?" if found else ""


def _fields_below(section: str) -> Mapping[str, Any]:
    model = section_of([section])
    return {} if model is None else model.model_fields


def _keys(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)


def _values(section: type[BaseModel], given: Mapping[str, Any], complaint: str) -> Iterator[str]:
    """The present values of the keys that a section's own complaint names, of sections below it too."""
    present = {name: field.default for name, field in section.model_fields.items()} | dict(given)
    named = set(re.findall(r"\w+(?:\.\w+)?", complaint))
    for name, field in section.model_fields.items():
        value, below = present[name], section_of([name]) if section is Config else None
        if below is None:
            if name in named:
                yield f"{name}={shown(value)}"
            continue
        default = field.default
        inner = {key: getattr(default, key) for key in below.model_fields} | (dict(value) if value else {})
        yield from (f"{name}.{key}={shown(inner[key])}" for key in below.model_fields if f"{name}.{key}" in named)


def _exponent_hint(detail: ErrorDetails) -> str:
    """PyYAML reads 5e-5 as a text: say how to write it."""
    if not (isinstance(detail["input"], str) and _is_number(detail["input"])):
        return ""
    return " (in YAML a number with an exponent needs a decimal point, as in 5.0e-5)"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "e" in text.lower()
