"""The resolved configuration: code defaults, shipped YAML, ``--config`` files, then ``key.sub=value`` overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from addiffusion.config import Config
from addiffusion.errors import ConfigError
from launch.config_errors import describe

Tree = dict[str, Any]
_HERE = Path(__file__).resolve().parent
_TEXT_ERRORS = frozenset({"string_type", "path_type"})


def shipped_files() -> tuple[Path, ...]:
    """Every configuration file that ships with the project: beside the package in a checkout, inside it in a wheel."""
    for folder in (_HERE / "configs", _HERE.parent / "configs"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.yaml")))
    raise ConfigError(f"the shipped configuration files are missing beside {_HERE}; install the package again")


def load_config(files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Config:
    """Resolve a configuration. Later layers win.

    The layers are: code defaults, ``configs/default.yaml``, ``configs/<backbone.kind>.yaml`` of the backbone that the
    user's layers select, ``files`` from left to right, ``overrides``.

    Raises:
        ConfigError: a file can't be read, or a key or value can't be used; the message names it and what is allowed.
    """
    user: Tree = {}
    for file in files:
        _merge(user, read_yaml(file))
    texts = _parse_overrides(overrides)
    for path, text in texts.items():
        _merge(user, _nest(path, _json_or_text(text)))
    tree: Tree = {}
    for name in ("default", _backbone_kind(user)):
        for file in shipped_files():
            if file.stem == name:
                _merge(tree, read_yaml(file))
    _merge(tree, user)
    return _validate(tree, texts)


def read_yaml(file: Path) -> Tree:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML, or not a mapping of JSON-like values.
    """
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        json.dumps(tree)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"configuration file {file} can't be read: {reason}.", file=str(file)) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"configuration file {file} is not valid YAML: {_one_line(error)}.", file=str(file)
        ) from error
    except TypeError as error:
        message = f"configuration file {file} holds a value that is no number, text, list or mapping: {error}."
        raise ConfigError(message, file=str(file)) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration file {file} must hold `key: value` lines, not {tree!r}.", file=str(file))
    return tree


def load_resolved(file: Path) -> Config:
    """The configuration a run folder was written with: exactly this file, no other layer."""
    return _validate(read_yaml(file), {})


def _parse_overrides(overrides: Sequence[str]) -> dict[tuple[str, ...], str]:
    texts: dict[tuple[str, ...], str] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            raise ConfigError(f"override {item!r} is not of the form key.sub=value, e.g. ppo.lr=1.0e-4.", override=item)
        texts.pop(path, None)
        texts[path] = text
    return texts


def _json_or_text(text: str) -> Any:
    """JSON where it parses (numbers, true, null), a bracketed list or mapping of YAML, otherwise the text as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return _bracketed(text) if text.startswith(("[", "{")) else text


def _bracketed(text: str) -> Any:
    """`[continue,stop]` as in a YAML file: the quotes that JSON wants are a nuisance in a shell."""
    try:
        value = yaml.safe_load(text)
        json.dumps(value)
    except (yaml.YAMLError, TypeError):
        return text
    return value


def _nest(path: Sequence[str], leaf: Any) -> Tree:
    for part in reversed(path):
        leaf = {part: leaf}
    return leaf


def _merge(into: Tree, new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        present = into.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge(present, value)
        else:
            into[key] = value


def _backbone_kind(tree: Tree) -> str:
    section = tree.get("backbone")
    kind = section.get("kind") if isinstance(section, dict) else None
    return kind if isinstance(kind, str) else Config().backbone.kind


def _validate(tree: Tree, texts: Mapping[tuple[str, ...], str]) -> Config:
    try:
        return Config.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        as_text = [e["loc"] for e in error.errors() if e["type"] in _TEXT_ERRORS and e["loc"] in texts]
        if not as_text:
            raise ConfigError(describe(error), errors=[e["type"] for e in error.errors()]) from error
    for path in as_text:  # `run.dir=2026` is a folder's name although it parses as a number
        _merge(tree, _nest([str(part) for part in path], texts[tuple(str(part) for part in path)]))
    return _validate(tree, {})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
