"""Files and messages from outside can't execute anything: no unpickling, no YAML tags, no code from a hub."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from addiffusion.configuration.yaml import read_yaml
from addiffusion.errors import ConfigError, WeightsError
from addiffusion.scorers.weights import WeightsFile
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


def could_execute(name: str, keywords: dict[str, ast.expr]) -> bool:
    """The one reader of YAML has a loader of its own; that it makes nothing but plain values is tested below."""
    if name in FORBIDDEN or (name == "torch.load" and not is_true(keywords.get("weights_only"))):
        return True
    return is_true(keywords.get("allow_pickle")) or is_true(keywords.get("trust_remote_code"))


def test_no_file_loads_what_could_execute() -> None:
    assert len(FILES) > 100
    found = [f"{file.name}: {name}" for file in FILES for name, words in calls(file) if could_execute(name, words)]
    assert found == ["yaml.py: yaml.load"]


def test_yaml_tags_make_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"run: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(file)
    assert not (tmp_path / "made").exists()


class Trap:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_weights_that_would_execute_something_are_refused_in_one_sentence(tmp_path: Path) -> None:
    weights, proof = tmp_path / "head.pth", tmp_path / "executed"
    torch.save({"state_dict": Trap(proof)}, weights)
    torch.load(weights, weights_only=False)
    assert proof.exists(), "the trap works"
    proof.unlink()
    kind = WeightsFile(key="scorers.aesthetic.weights", filename="head.pth", origin="its authors")
    with pytest.raises(WeightsError, match=r"head.pth, which scorers.aesthetic.weights names, can't be loaded"):
        kind.tensors(weights)
    assert not proof.exists()
