"""Scorers of a user's own: the example of docs/rewards.md is what is tested."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from addiffusion.config import ScorersSection
from addiffusion.embedded.world.data import SceneBatch
from addiffusion.errors import ConfigError
from addiffusion.records import ScoreRequest
from addiffusion.scorers.families import load_suite

PAGE = Path(__file__).parents[3] / "docs" / "rewards.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (code,) = re.findall(r"```python\n(# sharpness\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / "sharpness.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sharpness", raising=False)
    return "sharpness:make"


def section_with(*paths: str) -> ScorersSection:
    return ScorersSection(device="cpu", batch_images=4, extra=paths)


def test_the_example_of_the_docs_scores(example: str, scenes: SceneBatch) -> None:
    suite = load_suite(section_with(example))
    images = scenes.images[:3].copy()
    images[1] = 128
    reply = suite.score(ScoreRequest(images=images, prompts=scenes.captions[:3], names=("sharpness", "clip")))
    grey = images.astype(np.float64).mean(axis=3)
    expected = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    np.testing.assert_allclose(reply.values[:, 0], expected, rtol=1e-5)
    assert reply.values[1, 0] == 0.0
    assert suite.names[-1] == "sharpness"


def test_a_name_that_is_taken_is_refused(example: str) -> None:
    with pytest.raises(ConfigError, match="'sharpness', but there is one of that name already"):
        load_suite(section_with(example, example))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module:make", "no_such_module can't be imported"),
        ("json:no_such_factory", "json has no factory no_such_factory"),
    ],
)
def test_what_cant_be_found_is_one_sentence(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_suite(section_with(path))


def test_a_path_without_a_factory_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="extra"):
        section_with("sharpness")
