"""Whatever is given: it works, or one whole sentence of our own tree says why not, and nothing half-written is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from addiffusion.config import BackboneSection, PromptsSection
from addiffusion.configuration.text import to_yaml
from addiffusion.prompts import load_prompts
from launch.cli.app import Commands
from launch.cli.app import app as whole
from launch.cli.border import EXIT_DEFECT
from launch.comparing.score import read_image
from launch.training.run_folder import RunFolder
from launch.tuning.study import load_study
from learner.checkpoint import save_checkpoint
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config
from tests.addiffusion.tiny_models import save_sd15_like
from tests.launch.cli import fuzzing
from tests.launch.training.toy_policy import toy_policy
from tests.learner.test_checkpoint import make_checkpoint

READERS: dict[str, Callable[[Path], object]] = {
    "prompts": lambda path: load_prompts(PromptsSection(source=str(path)), split="train", count=4, seed=0),
    "study": load_study,
    "image": read_image,
}
reading = typer.Typer(cls=Commands)


@reading.command()
def read(kind: str, path: Path) -> None:
    """Read one thing, inside the border of the command line."""
    {**READERS, "model": _load_model, "lora": _fuse}[kind](path)


@reading.command()
def nothing() -> None:
    """A second command, without which typer would have no group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A command line on a folder of files."""

    app: typer.Typer
    words: list[str]
    writes: str | None = None
    """The one entry it may leave in the folder, where it ends well."""


def _load_model(path: Path) -> object:
    from addiffusion.backbones import load_backbone  # noqa: PLC0415 - takes seconds, and only this kind needs it

    section = BackboneSection(kind="stable_diffusion", path=str(path), device="cpu")
    return load_backbone(section).encode_prompts(["a cat"])


@cache
def _pipeline() -> Any:
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415 - takes seconds, and only this kind needs it

    return StableDiffusionPipeline.from_pretrained(template("model"), safety_checker=None)


def _fuse(path: Path) -> None:
    from addiffusion.backbones.lora import fuse_lora  # noqa: PLC0415 - likewise

    fuse_lora(_pipeline(), str(path))


@cache
def template(kind: str) -> Path:
    """A good folder of a kind, made once."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / kind
    if kind == "policy":
        toy_policy(folder)
    elif kind == "run":
        RunFolder.create(folder, toy_bank_config())
        save_checkpoint(folder, make_checkpoint(), keep=1)
    elif kind == "bank":
        toy_bank(folder, toy_bank_config(), count=2)
    else:
        save_sd15_like(folder)
    return folder


def _prompts(data: st.DataObject, folder: Path) -> Attempt:
    """A prompt file under any name."""
    suffix, content = data.draw(fuzzing.prompt_files())
    (folder / f"file{suffix}").write_bytes(content)
    return Attempt(app=reading, words=["read", "prompts", str(folder / f"file{suffix}")])


def _plain(kind: str, name: str, contents: st.SearchStrategy[bytes]) -> Callable[[st.DataObject, Path], Attempt]:
    def attempt(data: st.DataObject, folder: Path) -> Attempt:
        (folder / name).write_bytes(data.draw(contents))
        return Attempt(app=reading, words=["read", kind, str(folder / name)])

    return attempt


def _config(data: st.DataObject, _: Path) -> Attempt:
    return Attempt(app=whole, words=["config", "--json", "--", *data.draw(fuzzing.overrides())])


def _yaml(data: st.DataObject, folder: Path) -> Attempt:
    (folder / "c.yaml").write_bytes(data.draw(fuzzing.yaml_files()))
    return Attempt(app=whole, words=["config", "-c", str(folder / "c.yaml")])


def _damaged(data: st.DataObject, folder: Path, kind: str) -> Path:
    """The good folder with one of its files damaged or gone."""
    copy = folder / kind
    shutil.copytree(template(kind), copy, symlinks=True)
    file = data.draw(st.sampled_from(sorted(path for path in copy.rglob("*") if path.is_file())))
    if data.draw(st.integers(0, 9)) == 0:
        file.unlink()
    else:
        file.write_bytes(data.draw(fuzzing.damaged(file.read_bytes())))
    return copy


def _policy(data: st.DataObject, folder: Path) -> Attempt:
    source = _damaged(data, folder, "policy")
    return Attempt(
        app=whole, words=["export", str(source), "--out", str(folder / "out"), "--prompts", "0"], writes="out"
    )


def _run(data: st.DataObject, folder: Path) -> Attempt:
    source = _damaged(data, folder, "run")
    return Attempt(
        app=whole, words=["export", str(source), "--out", str(folder / "out"), "--prompts", "0"], writes="out"
    )


def _bank(data: st.DataObject, folder: Path) -> Attempt:
    source = _damaged(data, folder, "bank")
    (folder / "toy.yaml").write_text(to_yaml(toy_bank_config()))
    return Attempt(app=whole, words=["bank", "info", str(source), "-c", str(folder / "toy.yaml")])


def _model(data: st.DataObject, folder: Path) -> Attempt:
    return Attempt(app=reading, words=["read", "model", str(_damaged(data, folder, "model"))])


KINDS: dict[str, Callable[[st.DataObject, Path], Attempt]] = {
    "config": _config,
    "yaml": _yaml,
    "study": _plain("study", "study.yaml", fuzzing.yaml_files()),
    "prompts": _prompts,
    "image": _plain("image", "image.png", fuzzing.image_files()),
    "lora": _plain("lora", "lora.safetensors", fuzzing.damaged(fuzzing.LORA)),
    "policy": _policy,
    "run": _run,
    "bank": _bank,
    "model": _model,
}
SHARES = {
    "config": 40,
    "yaml": 35,
    "study": 20,
    "prompts": 35,
    "image": 20,
    "lora": 15,
    "policy": 12,
    "run": 10,
    "bank": 10,
    "model": 3,
}
"""Cases of a run of 200, by kind: few of what takes long."""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_works_or_says_why_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(kind, SHARES[kind], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_ten_thousand_cases(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(kind, 50 * SHARES[kind], monkeypatch)


def fuzz(kind: str, cases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try ``cases`` attempts of a kind, each in an empty folder; the smallest that fails is shown."""

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "files"
            folder.mkdir()
            monkeypatch.setattr("launch.cli.border.record", lambda _: None)  # its traceback comes with the failure
            _try(KINDS[kind](data, folder), folder)

    attempt()


def _try(attempt: Attempt, folder: Path) -> None:
    before = _names(folder)
    result = CliRunner().invoke(attempt.app, attempt.words)
    left = _names(folder) - before
    told: Any = (attempt.words, result.exit_code, result.stderr[-2000:])
    if result.exit_code == EXIT_DEFECT:
        raise AssertionError(told) from result.exception
    assert result.exit_code in {0, 1, 2}, told
    assert not any(name.endswith(".partial") for name in left), left
    if result.exit_code:
        assert not left, left
        _check_sentence(result.stderr)
    elif attempt.writes is not None:
        assert {name.partition("/")[0] for name in left} == {attempt.writes}


def _check_sentence(stderr: str) -> None:
    """Whole, of a length that is read, and no line of a traceback."""
    complaint = stderr.rpartition("Error: ")[2] if "Error: " in stderr else stderr
    assert complaint.strip(), stderr
    assert "Traceback" not in stderr
    assert len(complaint) < 2000, complaint


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
