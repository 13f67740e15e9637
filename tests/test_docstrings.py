"""What a caller reads of a function with many parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("addiffusion", "rollout_workers", "reward_service", "learner", "evaluation", "serving", "launch")
COMMANDS = ROOT / "launch" / "cli"
"""A command's docstring is what `--help` shows above its options, each of which says itself what it is."""
FEW = 3
"""Parameters that a summary line can still tell."""

Signature = tuple[str, tuple[str, ...]]


def _functions(scope: ast.Module | ast.ClassDef, above: str = "") -> Iterator[tuple[Signature, str]]:
    """Public functions and methods, each with what its docstring says; a constructor's is its class's too."""
    for one in scope.body:
        if isinstance(one, ast.ClassDef) and not one.name.startswith("_"):
            yield from _functions(one, ast.get_docstring(one) or "")
        if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        said = ast.get_docstring(one) or ""
        if one.name == "__init__":
            said += above
        elif one.name.startswith("_"):
            continue
        parameters = (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)
        yield (one.name, tuple(each.arg for each in parameters if each.arg not in {"self", "cls"})), said


def _protocols(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for one in tree.body:
        if isinstance(one, ast.ClassDef) and any(isinstance(of, ast.Name) and of.id == "Protocol" for of in one.bases):
            yield one


def _unsaid(trees: dict[str, ast.Module], known: set[Signature]) -> list[str]:
    return [
        f"{file}: {name}({', '.join(parameters)})"
        for file, tree in trees.items()
        for (name, parameters), said in _functions(tree)
        if len(parameters) > FEW and "Args:" not in said and (name, parameters) not in known
    ]


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {
        str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8"))
        for file in files
        if file.parent != COMMANDS
    }


def test_public_functions_of_four_parameters_and_more_say_what_these_are(trees: dict[str, ast.Module]) -> None:
    """An implementation of a protocol need not repeat what the protocol says of the same parameters."""
    protocols = [one for tree in trees.values() for one in _protocols(tree)]
    known = {signature for one in protocols for signature, said in _functions(one) if "Args:" in said}

    assert not _unsaid(trees, known)


def test_a_function_without_args_section_is_found() -> None:
    tree = ast.parse("class A:\n    def f(self, a, b, *, c, d):\n        '''Short.'''\n    def g(self, a, b, c): ...\n")

    assert _unsaid({"a.py": tree}, set()) == ["a.py: f(a, b, c, d)"]
