"""README's "What holds" and the numbered tests beside this file belong together, word by word."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
README = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")


def promises() -> dict[int, str]:
    """Each item of the list by its number, in one line and without the targets of links."""
    section = README.split("\n## What holds\n")[1].split("\n## ")[0]
    items = re.findall(r"^\* (.*?)(?=\n\*|\n\n)", section, re.MULTILINE | re.DOTALL)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", item) for item in items]
    return {number: " ".join(item.split()) for number, item in enumerate(plain, 1)}


def said_by_tests() -> dict[int, str]:
    """What the docstrings of each number's tests say, one after another."""
    said = defaultdict[int, list[str]](list)
    for file in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            numbered = re.match(r"test_(\d+)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if numbered is not None and isinstance(node, ast.FunctionDef):
                said[int(numbered[1])] += (ast.get_docstring(node) or "").split()
    return {number: " ".join(words) for number, words in sorted(said.items())}


def test_each_promise_is_what_its_tests_say() -> None:
    """Whoever changes a promise changes the test that quotes it; whoever adds one adds a test."""
    assert said_by_tests() == promises()


def test_every_other_test_here_is_of_files_from_before() -> None:
    """A test without a number holds no promise of the list, and belongs elsewhere."""
    named = re.compile(r"^def (test_(?!\d+_)\w+)", re.MULTILINE)
    others = {file.name for file in HERE.glob("test_*.py") if named.search(file.read_text(encoding="utf-8"))}
    assert others <= {Path(__file__).name, "test_made_before.py"}
