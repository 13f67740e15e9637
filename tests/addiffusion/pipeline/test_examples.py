"""Examples run as they stand: those of docstrings and docs, the README's lines, the scripts of `examples`."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
import sys
from pathlib import Path

import pytest

import addiffusion
from addiffusion import AdaptivePipeline, Policy, load_config, load_policy

ROOT = Path(__file__).parents[3]
DOCUMENTED = {
    "AdaptivePipeline": AdaptivePipeline,
    "Policy": Policy,
    "load_policy": load_policy,
    "load_config": load_config,
}


def failures(text: str, name: str) -> list[str]:
    """What the examples of a text print otherwise."""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert test.examples
    return said


def test_the_library_has_a_face() -> None:
    assert addiffusion.__all__ == ["AdaptivePipeline", "AdaptivePipelineOutput", "Policy", "load_config", "load_policy"]
    assert set(addiffusion.__all__) <= set(dir(addiffusion))
    with pytest.raises(AttributeError, match="module 'addiffusion' has no attribute 'absent'"):
        _ = addiffusion.absent


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_say_what_happens(name: str) -> None:
    assert failures(DOCUMENTED[name].__doc__ or "", name) == []


def test_the_page_says_what_happens() -> None:
    assert failures((ROOT / "docs/pipeline.md").read_text(), "pipeline.md") == []


def test_the_readmes_lines_run() -> None:
    (block,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope: dict[str, object] = {}
    exec(block, scope)
    assert len(scope["out"].images) == 8  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ast.get_docstring(ast.parse(script.read_text()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert list(tmp_path.glob("*.png"))
