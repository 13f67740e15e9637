"""Hypothesis strategies for what people may hand to a configuration: keys, values, YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from addiffusion.config import Config


def keys_of(section: type[BaseModel] = Config, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of the configuration, sections too, as a path."""
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, (*prefix, name))


KEYS = tuple(keys_of())
ODD_TEXTS = (
    "",
    "off",
    "null",
    "~",
    "~nosuchuser/x",
    "a" * 300,
    "a/" * 3000,
    "9" * 5000,
    "[" * 3000,
    "{" * 50,
    "1e999",
    "-0",
    "nan",
    "2026-01-01",
    "x\0y",
    "\ud800",
    "\udcff",
    "a\nb",
    "\u202e",
    "é" * 200,
    "5e-5",
    "0x1f",
    "../..",
    ":",
    "a:b",
    "cuda",
    "&a [*a]",
)
ODD_NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**18, -(10**18), 10**4000, 1e-308, 1e308, -1e308, 0.5, 1.5, 1e-9)


def texts() -> st.SearchStrategy[str]:
    """Any text, lone surrogates and zero bytes among them."""
    return st.one_of(st.sampled_from(ODD_TEXTS), st.text(st.characters(codec=None), max_size=40))


def numbers() -> st.SearchStrategy[int | float]:
    """Any number, infinite ones and those no file system or tensor could count among them."""
    return st.one_of(st.sampled_from(ODD_NUMBERS), st.integers(), st.floats())


def values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say."""
    leaves = st.one_of(st.none(), st.booleans(), numbers(), texts())
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4))


def choices() -> st.SearchStrategy[Any]:
    """Values that some key takes: most of what is odd is refused, and what is left should meet what is plausible."""
    known = [1, 2, 3, 4, 8, 50, 0.5, 0.1, True, False, "cpu", "auto", "serial", "ray", "latent", "clip", "pretrained"]
    return st.one_of(st.sampled_from(known), values())


def keys() -> st.SearchStrategy[tuple[str, ...]]:
    """A key of the configuration, mostly; sometimes one that there is none of."""
    known = st.sampled_from(KEYS)
    return st.one_of(known, known, known, st.builds(lambda path, name: (*path, name), known, texts().filter(bool)))


def override_of(path: tuple[str, ...], value: Any) -> str:
    """``key.sub=value`` with the value as JSON; 4300 digits are the most that Python writes."""
    return f"{'.'.join(path)}={json.dumps(value)}"


def yaml_of(path: tuple[str, ...], value: Any) -> str:
    """A YAML file with that value at that key."""
    tree = value
    for name in reversed(path):
        tree = {name: tree}
    return yaml.safe_dump(tree, allow_unicode=False)
