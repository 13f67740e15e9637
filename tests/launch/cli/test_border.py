"""The border of the command line: what is no error of ours is a defect, with its traceback in a file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from addiffusion.errors import ContractError, PromptError, ScorerError
from launch.cli.app import Commands
from launch.cli.options import has_display, refuse_loose_words

ENDS: dict[str, BaseException] = {
    "foreign": RuntimeError("size mismatch\nsecond line"),
    "contract": ContractError("Two components disagree."),
    "usage": PromptError("The prompt is empty."),
    "failed": ScorerError("The scorers are gone."),
    "full": OSError(errno.ENOSPC, "No space left on device", "run/config.yaml"),
    "memory": MemoryError(),
    "stopped": KeyboardInterrupt(),
    "unprintable": ValueError("a \udcff path"),
    "left": typer.Exit(3),
}
app = typer.Typer(cls=Commands)


@app.command()
def end(how: str) -> None:
    """End in the way that is asked for."""
    raise ENDS[how]


@app.command()
def say(what: str) -> None:
    """Print it."""
    Console().print(what)


def ended(*arguments: str, charset: str = "utf-8") -> Result:
    return CliRunner(charset=charset).invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, with nothing in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "no_home"))
    monkeypatch.chdir(tmp_path)
    yield folder
    for closed in (folder, tmp_path):
        closed.chmod(0o755)


@pytest.mark.parametrize("how", ["foreign", "contract", "unprintable"])
def test_a_defect_says_so_and_leaves_its_traceback_in_a_file(how: str, temporary: Path) -> None:
    result = ended("end", how)
    assert result.exit_code == 70
    (file,) = temporary.iterdir()
    first, second = (line for line in result.stderr.splitlines() if line)
    assert "defect of addiffusion" in first
    assert str(file) in first
    assert "Traceback" not in result.output
    assert len(second) < 200
    text = file.read_text()
    assert "raise ENDS[how]" in text
    assert type(ENDS[how]).__name__ in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_where_no_file_can_be_written_the_traceback_is_printed(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "absent"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = ended("end", "foreign")
    assert result.exit_code == 70
    assert "Traceback (most recent call last)" in result.stderr
    assert "report it with what is printed above" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is a Linux file")
def test_a_full_disk_leaves_no_half_file(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first folder is full; the next one takes the file, and nothing is left in the first."""
    home = temporary.parent / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    opened = os.fdopen
    full = iter([True])

    def first_is_full(handle: int, mode: str) -> object:
        if next(full, False):
            os.close(handle)
            return opened(os.open("/dev/full", os.O_WRONLY), mode)
        return opened(handle, mode)

    monkeypatch.setattr(os, "fdopen", first_is_full)
    result = ended("end", "foreign")
    (file,) = home.iterdir()
    assert str(file) in result.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("usage", 2, "The prompt is empty."),
        ("failed", 1, "The scorers are gone."),
        ("full", 1, "No space left on device while run/config.yaml was written: make room"),
        ("memory", 1, "not enough memory"),
        ("stopped", 130, ""),
        ("left", 3, ""),
    ],
)
def test_every_other_end_has_its_code_and_no_file(how: str, code: int, words: str, temporary: Path) -> None:
    result = ended("end", how)
    assert result.exit_code == code
    assert words in result.stderr
    assert list(temporary.iterdir()) == []


def test_a_command_that_does_not_exist_is_a_matter_of_usage(temporary: Path) -> None:
    assert ended("absent").exit_code == 2
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
def test_any_text_is_printed_in_any_encoding(charset: str) -> None:
    result = ended("say", "“é” \udcff ↑", charset=charset)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes.decode(charset, "strict").count("\\udcff") == 1


def test_a_prompt_without_quotes_is_understood() -> None:
    with pytest.raises(PromptError, match=r"'red circle' after it is no key=value: put a prompt .* in quotes"):
        refuse_loose_words("a", ["red", "circle"])
    refuse_loose_words("a red circle", ["sampler.num_steps=5"])


def test_a_page_is_opened_only_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert has_display()


def test_a_notebooks_backend_of_matplotlib_stops_no_process() -> None:
    """Entry point, and a worker of Ray Tune, which begins with the module of its trials."""
    environment = {**os.environ, "MPLBACKEND": "module://backend_of_some_notebook"}
    code = "import launch, matplotlib; assert matplotlib.get_backend() == 'agg'"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
