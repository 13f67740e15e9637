"""`addiffusion embedded prompts`: what other tools get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from addiffusion.config import PromptsSection
from addiffusion.embedded.world.splits import split_of
from addiffusion.prompts import load_prompts
from launch.cli.app import app


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["embedded", "prompts", *arguments])


@pytest.mark.parametrize("split", ["train", "validation", "test", "compositional"])
def test_text_lines_are_the_prompts_of_a_run(split: str) -> None:
    result = invoke("--split", split, "--count", "12", "--seed", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    expected = load_prompts(PromptsSection(), split=split, count=12, seed=3)  # pyright: ignore[reportArgumentType]
    assert lines == [prompt.text for prompt in expected]
    assert {split_of(line) for line in lines} == {split}


def test_json_lines_say_tier_and_split(tmp_path: Path) -> None:
    path = tmp_path / "hard.jsonl"
    result = invoke("--split", "test", "--count", "6", "--tier", "2", "--tier", "3", "--out", str(path))
    assert (result.exit_code, result.stdout) == (0, "")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["prompt_id"], row["tier"], row["split"]) for row in rows] == [
        (index, 2 + index % 2, "test") for index in range(6)
    ]
    printed = invoke("--split", "test", "--count", "6", "--tier", "2", "--tier", "3", "--json").stdout
    assert printed == path.read_text()


def test_a_written_file_is_a_prompt_source(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    assert invoke("--split", "train", "--tier", "3", "--count", "30", "--out", str(path)).exit_code == 0
    source = load_prompts(PromptsSection(source=str(path)), split="train", count=5, seed=0)
    assert {prompt.text for prompt in source} <= set(path.read_text().splitlines())


def test_a_folder_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    result = invoke("--split", "train", "--count", "1", "--out", str(tmp_path / "absent" / "prompts.txt"))
    assert result.exit_code == 2
    assert "can't be written" in result.stderr
    assert list(tmp_path.iterdir()) == []
