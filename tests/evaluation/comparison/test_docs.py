"""The examples of docs/evaluation.md are what is tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.judge.judge_server import judge_server

PAGE = (Path(__file__).parents[3] / "docs/evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    exec(BLOCKS[0], {})
    printed = capsys.readouterr().out
    assert "| policy - full run |" in printed
    assert r"\toprule" in printed
    assert printed.splitlines()[-1] == "True"


def test_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    bright, dark = np.full((8, 8, 3), 200, np.uint8), np.full((8, 8, 3), 20, np.uint8)
    names: dict[str, Any] = {"drawn": [("a red circle", bright, dark), ("a blue star", bright, dark)]}
    with judge_server() as server:
        exec(BLOCKS[1].replace("http://127.0.0.1:8000/v1", server.base_url), names)
    assert [standing.name for standing in names["standings"]] == ["policy", "full"]
    assert (tmp_path / "verdicts.jsonl").exists()
