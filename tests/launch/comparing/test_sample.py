"""One image of the embedded world from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from launch.cli.app import app


def sample(*arguments: str) -> Result:
    result = CliRunner().invoke(
        app, ["sample", "a red circle", "sampler.num_steps=5", "sampler.warmup_steps=3", *arguments]
    )
    assert result.exit_code == 0, result.output
    return result


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_sample_draws_an_image_and_prints_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = sample("--seed", "3", "--scale", "2", "-o", "big.png", "--film", "film.png")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["0-3", "warm-up", "4", "-"] in rows  # with what the decisions spent, all passes
    assert any(row[:3] == ["3-4", "continue", "1"] for row in rows)
    assert "5 NFE (10 network evaluations)" in result.stdout
    big = pixels(tmp_path / "big.png")
    assert big.shape == (128, 128, 3)
    assert pixels(tmp_path / "film.png").shape[1] > 300

    sample("--seed", "3", "-o", "again.png")
    np.testing.assert_array_equal(pixels(tmp_path / "again.png"), big[::2, ::2])
    sample("--seed", "4", "-o", "other.png")
    assert (pixels(tmp_path / "other.png") != big[::2, ::2]).any()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.png", "big.png", "film.png", "other.png"]


def test_a_prompt_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    """A byte that is not UTF-8 comes from the command line as half of a surrogate pair."""
    result = CliRunner().invoke(app, ["sample", "a red \udcff circle", "-o", str(tmp_path / "out.png")])
    assert result.exit_code == 2
    assert r"The prompt has '\udcff' for character 7, which is no text" in " ".join(result.stderr.split())
    assert not (tmp_path / "out.png").exists()


def test_without_a_look_at_the_image_no_scorer_is_loaded(tmp_path: Path) -> None:
    """Nor what scorers, plots and training import."""
    out = tmp_path / "a.png"
    code = (
        "import sys; from typer.testing import CliRunner; from launch.cli.app import app;"
        f"words = ['sample', 'a red circle', 'sampler.num_steps=5', 'sampler.warmup_steps=3', '-o', {str(out)!r}];"
        "assert CliRunner().invoke(app, words).exit_code == 0;"
        "print(sorted({'open_clip', 'timm', 'matplotlib', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
    assert out.exists()


def test_scores_are_printed_only_when_asked_for_and_change_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "aesthetic" not in sample("-o", "plain.png").stdout
    assert "aesthetic" in sample("-o", "scored.png", "--scores").stdout
    np.testing.assert_array_equal(pixels(tmp_path / "plain.png"), pixels(tmp_path / "scored.png"))
