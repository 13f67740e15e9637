"""The options that docs/engine.md advises are options, with values that they take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from addiffusion.configuration.files import load_config

PAGE = (Path(__file__).parents[3] / "docs/engine.md").read_text(encoding="utf-8")
ADVICE = re.findall(
    r"`((?:[a-z_]+\.[a-z_]+=[^`\s]+ ?)+)`", PAGE.split("## Which option when")[1].split("## Measure")[0]
)
COMPANIONS = {
    "backbone.kind=": ["backbone.path=here"],
    "observation.kind=": ["reward.preset=paired", "reward.credit=final"],
}
"""What an option needs beside it, as the page says."""


def test_the_page_gives_advice() -> None:
    assert len(ADVICE) > 12


@pytest.mark.parametrize("advice", ADVICE)
def test_advice_can_be_followed(advice: str) -> None:
    given = re.sub(r"=(\d+)\.\.\d+", r"=\1", advice).replace("...", "blurry").split()
    beside = [key for start, keys in COMPANIONS.items() if advice.startswith(start) for key in keys]
    config = load_config((), [*beside, *given]).model_dump(mode="json")
    for key, text in (setting.split("=", 1) for setting in given):
        section, name = key.split(".")
        assert config[section][name] == yaml.safe_load(text)
