"""README's commands, word for word and in its order, in an empty folder; only sizes are added.

What a cluster needs is in tests/launch/runtime/test_token.py and tests/cluster.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.cli.app import app
from tests.small_run import SMALL

pytestmark = pytest.mark.usefixtures("figures_once")
README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
ADDED = {
    "train": SMALL,
    "sample": [],
    "config": [],
    "evaluate": ["--quick", "--limit=2", "--films=0", "--stops=0"],
    "report": ["--films=1"],
    "bank": SMALL,
    "doctor": [],
}
"""What a command is given besides, by its name."""
LEAVES = {
    "train": "runs/*/result.json",
    "sample": "out.png",
    "evaluate": "evaluations/*/comparison.json",
    "report": "runs/*/report.html",
    "bank": "banks/train/*",
}
"""Where its result must be."""
ELSEWHERE = {"token", "serve"}
"""They need a cluster, or go on until they are ended: other tests run them."""


def commands() -> Iterator[list[str]]:
    """Arguments of each `addiffusion` of the page's consoles."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in re.findall(r"^\$ (.*)$", block.replace("\\\n", ""), re.MULTILINE):
            words = shlex.split(line, comments=True)
            starts = [at + 3 for at in range(len(words)) if words[at : at + 3] == ["uv", "run", "addiffusion"]]
            for start in starts:
                end = words.index("&&", start) if "&&" in words[start:] else len(words)
                yield words[start:end]


def run_of(place: Path) -> str:
    """The first run of the page, which it calls `runs/<time>`."""
    return str(min((place / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime).relative_to(place))


def test_every_command_does_what_it_says_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = Counter[str]()
    for number, words in enumerate(commands()):
        name = words[0]
        if name in ELSEWHERE:
            continue
        own = [f"run.dir=runs/{number}"] if name == "train" else []  # names of one second would be the same
        arguments = [run_of(tmp_path) if word == "runs/<time>" else word for word in (*words, *ADDED[name], *own)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output[-2000:], result.exception)
        seen[name] += 1
        assert len(list(tmp_path.glob(LEAVES.get(name, "*")))) >= (seen[name] if name == "train" else 1), arguments
    assert seen.keys() == ADDED.keys()
    assert seen["train"] == 4
