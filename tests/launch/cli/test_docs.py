"""Keys, values and defaults that README and docs state are those of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from addiffusion.config import Config
from addiffusion.configuration.files import load_config

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
WITH = ("backbone.kind=stable_diffusion", "backbone.path=folder")
"""What a value that is no embedded model's takes."""
SECTIONS = "|".join(Config.model_fields)
FILES = ("yaml", "yml", "json", "jsonl", "md", "py", "sbatch", "safetensors")
"""`cluster.yaml` is a file, and no key."""


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration with its value, sections included."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        yield prefix + name, value
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")


KEYS = dict(leaves(Config()))
EMBEDDED = dict(leaves(load_config([], [])))
"""With `configs/embedded.yaml` over the code's defaults."""


def stated(pattern: str) -> list[Any]:
    """Pages and groups of every match of ``pattern`` in all pages."""
    return [
        pytest.param(*match.groups(), id=f"{name}:{match.group(0)[:60]}")
        for name, text in TEXTS.items()
        for match in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("key", stated(rf"`((?:{SECTIONS})(?:\.[a-z_]+)+)[`=:]"))
def test_keys_exist(key: str) -> None:
    module = ROOT / key.replace(".", "/")
    assert key.rsplit(".", 1)[-1] in FILES or key in KEYS or module.is_dir() or module.with_suffix(".py").is_file()


@pytest.mark.parametrize("overrides", stated(rf"`((?:(?:{SECTIONS})\.[^\s`=]+=[^\s`]+ ?)+)`"))
def test_values_are_accepted(overrides: str) -> None:
    """Overrides between backticks, as a command takes them; a pipeline's folder may be missing from them."""
    given = [
        item for item in overrides.split() if not re.search(r"=[A-Z]+$|\.\.", item)
    ]  # =FILE, 2..8: the reader's own
    load_config([], [*WITH, *given])


@pytest.mark.parametrize(
    ("name", "general", "embedded"),
    stated(r"`([a-z_.]+)(?:: [a-z])?` \(([\d.]+)(?:; in the embedded world ([\d.]+))?\)"),
)
def test_defaults_are_those_of_the_configuration(name: str, general: str, embedded: str | None) -> None:
    (key,) = [key for key in KEYS if key == name or key.endswith(f".{name}")]
    assert KEYS[key] == float(general)
    assert EMBEDDED[key] == float(embedded or general)


def test_the_four_defaults_of_the_decision_process_are_stated() -> None:
    """Else the pattern above has lost them."""
    assert {"num_steps", "warmup_steps", "finish_steps", "k"} <= {
        param.values[0] for param in stated(r"`([a-z_.]+)(?:: [a-z])?` \([\d.]+")
    }


@pytest.mark.parametrize(("key", "value"), stated(r"`([a-z_]+\.[a-z_.]+)=([^`]+)` \(the default\)"))
def test_what_is_called_the_default_is_it(key: str, value: str) -> None:
    assert str(EMBEDDED[key]) == value


def test_readme_and_docs_say_the_same_of_the_first_command() -> None:
    (readme,) = re.findall(r"in about (\d+)\s+minutes on two cores", TEXTS["README.md"])
    (running,) = re.findall(r"about (\d+) minutes on 2 cores", TEXTS["running.md"])
    assert readme == running


def test_files_that_pages_name_are_there() -> None:
    pages = {**TEXTS, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
    named = {(page, path) for page, text in pages.items() for path in re.findall(r"`((?:\w+/)+\w+\.py)`", text)}
    assert len(named) > 20
    assert [one for one in sorted(named) if not (ROOT / one[1]).is_file()] == []
