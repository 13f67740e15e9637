"""The resolved configuration: code defaults, shipped YAML, ``--config`` files, then ``key.sub=value`` overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from addiffusion.config import Config
from addiffusion.configuration.earlier import is_whole, updated
from addiffusion.configuration.errors import describe
from addiffusion.configuration.shown import dotted, shortened, shown
from addiffusion.configuration.yaml import Tree, load_yaml, plain, read_yaml
from addiffusion.errors import ConfigError
from addiffusion.json_object import is_object

_HERE = Path(__file__).resolve().parents[1]
_TEXT_ERRORS = frozenset({"string_type", "path_type"})
_MOST_PARTS = 10


def shipped_files() -> tuple[Path, ...]:
    """Every configuration file that ships with the project: beside the package in a checkout, inside it in a wheel."""
    for folder in (_HERE / "configs", _HERE.parent / "configs"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.yaml")))
    raise ConfigError(f"the shipped configuration files are missing beside {_HERE}; install the package again")


def load_config(files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Config:
    """Resolve a configuration. Later layers win.

    The layers are: code defaults, ``configs/default.yaml``, ``configs/<backbone.kind>.yaml`` of the backbone that the
    user's layers select, ``files`` from left to right, ``overrides``. Where one of the files is the whole
    configuration of a run or policy, no shipped file is a layer.

    Args:
        files: of YAML.
        overrides: as on the command line.

    Raises:
        ConfigError: a file can't be read, or a key or value can't be used; the message names it and what is allowed.

    Examples:
        >>> from addiffusion import load_config
        >>> load_config(overrides=["sampler.num_steps=20"]).sampler.num_steps
        20
    """
    user: Tree = {}
    given = [updated(read_yaml(file)) for file in files]
    for one in given:
        _merge(user, one)
    texts = _parse_overrides(overrides)
    for path, text in texts.items():
        _merge(user, _override(path, text))
    tree: Tree = {}
    for name in () if any(map(is_whole, given)) else ("default", _backbone_kind(user)):
        for file in shipped_files():
            if file.stem == name:
                _merge(tree, read_yaml(file))
    _merge(tree, user)
    return _validate(tree, texts)


def load_resolved(file: Path) -> Config:
    """The configuration a run folder was written with: exactly this file, no other layer."""
    return _validate(updated(read_yaml(file)), {})


def _parse_overrides(overrides: Sequence[str]) -> dict[tuple[str, ...], str]:
    texts: dict[tuple[str, ...], str] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            raise ConfigError(
                f"override {shown(item)} is not of the form key.sub=value, e.g. ppo.lr=1.0e-4.", override=item
            )
        if len(path) > _MOST_PARTS:
            raise ConfigError(f"unknown key {shortened(key)}: no key has more than {_MOST_PARTS} parts.", override=item)
        texts.pop(path, None)
        texts[path] = text
    return texts


def _override(path: tuple[str, ...], text: str) -> Tree:
    """What an override says, as a tree.

    Raises:
        ConfigError: a mapping in it gives a key twice, or it holds what no configuration can; the key is named.
    """
    try:
        value = _json_or_text(text)
    except ConfigError as error:
        raise ConfigError(f"{dotted(path)}: {error.message}", **error.facts) from error
    return plain(_nest(path, value), ())


def _json_or_text(text: str) -> Any:
    """JSON where it parses (numbers, true, null), a bracketed list or mapping of YAML, otherwise the text as it is."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return _bracketed(text) if text.startswith(("[", "{")) else text


def _bracketed(text: str) -> Any:
    """`[continue,stop]` as in a YAML file: the quotes that JSON wants are a nuisance in a shell."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return text


def _unique(pairs: Sequence[tuple[str, Any]]) -> Tree:
    found: Tree = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"{shown(key)} is given twice: only one of them can hold, so join them.", key=key)
        found[key] = value
    return found


def _nest(path: Sequence[str], leaf: Any) -> Tree:
    for part in reversed(path):
        leaf = {part: leaf}
    return leaf


def _merge(into: Tree, new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        present = into.get(key)
        if is_object(value) and is_object(present):
            _merge(present, value)
        else:
            into[key] = value


def _backbone_kind(tree: Tree) -> str:
    section = tree.get("backbone")
    kind = section.get("kind") if is_object(section) else None
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
