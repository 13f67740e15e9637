"""Whatever is written at whatever key: a configuration, or one sentence that names the key."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from addiffusion.config import Config
from addiffusion.configuration.files import load_config, load_resolved
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import ConfigError
from tests.generators import choices, keys, override_of, texts, values, yaml_of

FAST = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
SLOW = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
Override = tuple[tuple[str, ...], Any]


def printable(part: str) -> bool:
    return bool(part) and part.isprintable() and len(part) <= 60


def check_sentence(message: str, path: tuple[str, ...]) -> None:
    """One whole line that names the key, or, where the key itself is odd or a part of the value, what it stands in."""
    assert message.isprintable()
    assert message.endswith(".")
    assert not message.startswith((":", " "))
    assert len(message) < 8000
    named = path if all(map(printable, path)) else path[:1]
    assert any(part in message for part in {".".join(named), named[-1], named[0]}), (message, path)


def tried(files: list[Path], overrides: list[str]) -> Config | str:
    try:
        return load_config(files, overrides)
    except ConfigError as error:
        return error.message


def check_override(path: tuple[str, ...], value: Any) -> None:
    item = override_of(path, value)
    result = tried([], [item])
    if isinstance(result, str):
        check_sentence(result, tuple(item.partition("=")[0].split(".")))
    else:
        check_reads_back(result)


def check_file(path: tuple[str, ...], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.yaml"
        with contextlib.suppress(UnicodeEncodeError):
            file.write_text(yaml_of(path, value), encoding="utf-8")
            result = tried([file], [])
            if isinstance(result, str):
                check_sentence(result, path)
            else:
                check_reads_back(result)


def check_reads_back(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        assert load_resolved(file) == config


def check_argument(path: tuple[str, ...], text: str) -> None:
    result = tried([], [f"{'.'.join(path)}={text}"])
    assert isinstance(result, Config) or (result.isprintable() and result.endswith("."))


@FAST
@given(keys(), choices())
@example(("run", "dir"), "\ud800")
@example(("prompts", "train_count"), 10**18)
@example(("policy", "hidden"), [10**4000])
def test_any_override_is_taken_or_refused_in_a_sentence(path: tuple[str, ...], value: Any) -> None:
    check_override(path, value)


@FAST
@given(keys(), choices())
def test_any_file_is_taken_or_refused_in_a_sentence(path: tuple[str, ...], value: Any) -> None:
    check_file(path, value)


@FAST
@given(keys(), texts())
@example(("ppo",), "[" * 3000)
@example(("ppo", "lr"), "{a: 1, a: 1}")
def test_any_words_of_a_command_line_are_taken_or_refused(path: tuple[str, ...], text: str) -> None:
    check_argument(path, text)


@FAST
@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.yaml"
        file.write_bytes(content)
        result = tried([file], [])
        assert isinstance(result, Config) or ("c.yaml" in result or "key" in result or "section" in result)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_of_each() -> None:
    SLOW(given(keys(), choices())(check_override))()
    SLOW(given(keys(), values())(check_file))()
    SLOW(given(keys(), texts())(check_argument))()
