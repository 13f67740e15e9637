"""Examples run as they stand: those of docstrings and docs, the README's lines, scripts and notebook of `examples`.

Only trainings are made smaller.
"""

from __future__ import annotations

import ast
import doctest
import re
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from PIL.Image import Image

import addiffusion
from tests.small_run import SMALL

pytestmark = pytest.mark.usefixtures("figures_once")
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
ARGUMENTS = {"train_and_use": [*SMALL, "policy.actions=[continue,stop,refine,unguided]"]}
PARAMETERS = {"IMAGES": 1, "SPEEDS": (4,), "TRAINING": SMALL}
"""Instead of those of the notebook's cell `parameters`."""


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


@pytest.mark.parametrize("name", addiffusion.__all__)
def test_docstrings_say_what_happens(name: str) -> None:
    assert failures(getattr(addiffusion, name).__doc__ or "", name) == []


def test_the_page_says_what_happens() -> None:
    assert failures((ROOT / "docs/pipeline.md").read_text(), "pipeline.md") == []


def test_the_readmes_lines_run() -> None:
    (block,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope: dict[str, object] = {}
    exec(block, scope)
    assert len(scope["out"].images) == 8  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ast.get_docstring(ast.parse(script.read_text()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), *ARGUMENTS.get(script.stem, [])])
    monkeypatch.syspath_prepend(script.parent)  # as `python SCRIPT` has it
    runpy.run_path(str(script), run_name="__main__")
    assert list(tmp_path.glob("*.png"))


def test_the_notebooks_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(EXAMPLES / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    scope: dict[str, object] = {"__name__": "__main__"}
    shown: list[object] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            shown.append(result_of(cell.source, scope))
        if "parameters" in cell.metadata.get("tags", []):
            assert scope.keys() >= PARAMETERS.keys()
            scope.update(PARAMETERS)
    assert sum(isinstance(one, Image) for one in shown) == 3


def result_of(source: str, scope: dict[str, object]) -> object:
    """Run a cell; what a notebook would show of it is the value of the expression at its end."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        return exec(compile(source, "cell", "exec"), scope)
    exec(compile(ast.Module(body, []), "cell", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), scope)
