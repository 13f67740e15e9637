"""Files and messages from outside can't execute anything: no unpickling, no YAML tags, no code from a hub."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from addiffusion.errors import AdDiffusionError
from addiffusion.scorers.weights import load_weights
from tests.cluster.head import ROOT

PACKAGES = ("addiffusion", "rollout_workers", "reward_service", "learner", "evaluation", "launch")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
FORBIDDEN = {
    "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "dill.load", "joblib.load", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "shelve.open", "eval", "exec",
}  # fmt: skip


def calls(file: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every call of a file: its dotted name and its keywords."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_loads_what_could_execute(file: Path) -> None:
    for name, keywords in calls(file):
        assert name not in FORBIDDEN
        assert name != "torch.load" or is_true(keywords.get("weights_only"))
        assert not is_true(keywords.get("allow_pickle"))
        assert not is_true(keywords.get("trust_remote_code"))
        assert keywords.get("weights_only") is None or is_true(keywords["weights_only"])
