"""The resolved configuration as commented YAML: what `addiffusion config` prints and a run folder keeps."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from addiffusion.config import Config

_WIDTH = 100


def to_yaml(config: Config) -> str:
    """``config`` as YAML, every key under its documentation; `load_resolved` reads it back unchanged."""
    return "\n".join(_section_lines(Config, json.loads(config.model_dump_json()), "")).strip() + "\n"


def _section_lines(section: type[BaseModel], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if not indent:
            yield ""
        yield from _comment(field.description or "", indent)
        if get_origin(field.annotation) is Literal:
            yield f"{indent}# [{' | '.join(map(str, get_args(field.annotation)))}]"
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield f"{indent}{name}:"
            yield from _section_lines(annotation, values[name], indent + "  ")
        else:
            yield f"{indent}{name}: {_value(values[name])}"


def _comment(words: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(words.replace("`", ""), _WIDTH - len(indent))]


def _value(value: Any) -> str:
    """One line of YAML. PyYAML's own emitter, because it writes 1.0e-05 where JSON's 1e-05 would be read as text."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
