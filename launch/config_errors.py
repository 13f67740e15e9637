"""What is wrong with a configuration, in sentences: the key, the value, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from addiffusion.config import Config


def describe(error: ValidationError) -> str:
    """Every complaint of ``error`` as one sentence, joined with semicolons."""
    return "; ".join(_sentence(detail) for detail in error.errors()) + "."


def section_of(path: Sequence[int | str]) -> type[BaseModel] | None:
    """The section of ``Config`` that ``path`` leads to, or None where it leads to a value or nowhere."""
    section: type[BaseModel] = Config
    for part in path:
        field = section.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        section = field.annotation
    return section


def _sentence(detail: ErrorDetails) -> str:
    path = detail["loc"]
    key = ".".join(str(part) for part in path)
    if detail["type"] == "extra_forbidden":
        return _unknown_key(key, path)
    section = section_of(path)
    if section is not None and detail["type"] == "value_error":
        complaint = str(detail.get("ctx", {}).get("error", detail["msg"]))
        return f"{key}: {complaint} ({_values(section, detail['input'], complaint)})"
    if section is not None:
        return f"{key} is a section, not a value (given: {detail['input']!r}); set one of its keys: {_keys(section)}"
    reason = detail["msg"].replace("Input should", "it should")
    return f"{key} can't be {detail['input']!r}: {reason}{_exponent_hint(detail)}"


def _unknown_key(key: str, path: Sequence[int | str]) -> str:
    parent = section_of(path[:-1])
    if parent is None:
        return f"unknown key {key}"
    keys = list(parent.model_fields)
    where = f"keys of {'.'.join(map(str, path[:-1]))}" if path[:-1] else "top-level keys"
    near = difflib.get_close_matches(str(path[-1]), keys, n=1)
    prefix = "".join(f"{part}." for part in path[:-1])
    meant = f", did you mean {prefix}{near[0]}?" if near else _elsewhere(str(path[-1]))
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


def _values(section: type[BaseModel], given: Mapping[str, Any], complaint: str) -> str:
    """The present values of the keys that a section's own complaint names."""
    present = {name: field.default for name, field in section.model_fields.items()} | dict(given)
    named = set(re.findall(r"\w+", complaint))
    return ", ".join(f"{name}={present[name]!r}" for name in section.model_fields if name in named)


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
    return True
