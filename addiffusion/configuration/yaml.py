"""The one reader of YAML: plain values only, nothing given twice, bounded in size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from yaml.composer import ComposerError

from addiffusion.configuration.shown import dotted, shown
from addiffusion.errors import ConfigError
from addiffusion.json_object import is_object

Tree = dict[str, Any]
_MOST_BYTES = 1_000_000
_MOST_VALUES = 100_000
_MOST_DEPTH = 40
_MOST_BITS = 4096
_TEXT, _TIME, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge"))


def read_yaml(file: Path, *, what: str = "configuration file") -> Tree:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: the file is missing, unreadable, too large, not YAML, gives a key twice, or is not a mapping of
            JSON-like values.
    """
    text = _text(file, what)
    try:
        tree = plain(_parsed(text), ())
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} {file} is not valid YAML: {_one_line(error)}.", file=str(file)) from error
    except ConfigError as error:
        raise ConfigError(f"{what} {file}: {error.message}", file=str(file)) from error
    if tree is None:
        return {}
    if not is_object(tree):
        raise ConfigError(f"{what} {file} must hold `key: value` lines, not {shown(tree)}.", file=str(file))
    return tree


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """What ``load_yaml`` makes of a file, to be copied: those that ship are read for every configuration."""
    return load_yaml(text)


def load_yaml(text: str) -> Any:
    """What ``text`` says; dates stay texts. `plain` makes sure that a configuration can hold it.

    Raises:
        yaml.YAMLError: it is no YAML, or nested too deep.
        ConfigError: a key stands twice in a mapping.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - derived from SafeLoader


def plain(value: Any, path: tuple[str, ...]) -> Any:
    """A copy of ``value`` as null, booleans, numbers, texts, lists and mappings with text keys.

    Args:
        value: what YAML or JSON said.
        path: the key it stands under.

    Raises:
        ConfigError: something in it is of another type, too deep, or part of itself; the message names its key.
    """
    return _Walk().copy(value, path)


class _Walk:
    """A copy of a tree that ends, also where the tree holds itself or the same part many times."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def copy(self, value: Any, path: tuple[str, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            _refuse(path[:1], f"holds more than {_MOST_VALUES} values")
        if len(path) > _MOST_DEPTH:
            _refuse(path[:3], f"is nested more than {_MOST_DEPTH} deep, or holds itself")
        if isinstance(value, dict):
            return self._mapping(cast("dict[Any, Any]", value), path)
        if isinstance(value, list):
            items = cast("list[Any]", value)
            return [self.copy(item, (*path, str(place))) for place, item in enumerate(items)]
        if not isinstance(value, bool | int | float | str | None):
            _refuse(path, f"can't be {shown(value)}: give a number, text, list or mapping")
        if isinstance(value, str) and not _encodable(value):
            _refuse(path, f"can't be {shown(value)}: it holds half of a character (a lone surrogate)")
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            _refuse(path, f"can't be {shown(value)}: give a smaller one")
        return value

    def _mapping(self, value: dict[Any, Any], path: tuple[str, ...]) -> Tree:
        tree: Tree = {}
        for key, item in value.items():
            if not isinstance(key, str) or not _encodable(key):
                _refuse(path, f"has the key {shown(key)}: give keys of plain text")
            tree[key] = self.copy(item, (*path, key))
        return tree


def _refuse(path: tuple[str, ...], reason: str) -> NoReturn:
    raise ConfigError(f"{dotted(path) or 'the top level'} {reason}.", key=".".join(path))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but keys are texts that stand once, nesting ends, and odd scalars stay texts."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose, but not deeper than a configuration can be: the composer calls itself for each level."""
        self._depth += 1
        if self._depth > 2 * _MOST_DEPTH:
            raise ComposerError(None, None, "it is nested too deep", cast("Any", self).peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose, and refuse a key that stands twice, naming both lines."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in _scalar_keys(node):
            line = key.start_mark.line + 1
            if key.value in lines:
                where = f"lines {lines[key.value]} and {line}" if lines[key.value] != line else f"line {line}"
                raise ConfigError(
                    f"{shown(key.value)} is given twice, in {where}: only one of them can hold, so join them.",
                    key=key.value,
                    line=line,
                )
            lines[key.value] = line
            key.tag = _TEXT
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of ``node``; the text of a scalar that is written like a number or date and is none."""
        construct = cast("Any", super()).construct_object
        if not isinstance(node, yaml.ScalarNode):
            return construct(node, deep)
        try:
            return construct(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError):
            return node.value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIME]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _scalar_keys(node: yaml.MappingNode) -> Iterator[yaml.ScalarNode]:
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            yield key


def _text(file: Path, what: str) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{what} {file} is larger than {_MOST_BYTES} bytes: give another file.", file=str(file))
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{what} {file} can't be read: {reason}.", file=str(file)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
