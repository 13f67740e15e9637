"""The command line: help, bad input, what is printed where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from addiffusion.config import Config
from launch.cli.app import app
from launch.training.run_folder import RunFolder


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def sentence(result: Result) -> str:
    """The complaint, with nothing else on either stream."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert result.stdout.strip() == ""
    return lines[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; a test that fails here must leave it empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("train",),
        ("sample",),
        ("config",),
        ("embedded",),
        ("embedded", "train"),
        ("bench",),
        ("bench", "engine"),
        ("bench", "collect"),
        ("bench", "finish"),
        ("bench", "startup"),
        ("bench", "speed"),
        ("settings",),
    ],
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_config_prints_yaml_and_json() -> None:
    assert "# Adam learning rate.\n  lr: 0.002\n" in invoke("config", "ppo.lr=0.002").stdout
    assert json.loads(invoke("config", "ppo.lr=0.002", "--json").stdout)["ppo"]["lr"] == 0.002


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ppo.learning_rate=1",), "unknown key ppo.learning_rate"),
        (("ppo.lr=quick",), "ppo.lr can't be 'quick'"),
        (("--config", "absent.yaml"), "configuration file absent.yaml can't be read"),
        (("prompts.source=absent.txt", "cluster.mode=serial"), "absent.txt"),
        (("sampler.solver=lcm", "cluster.mode=serial"), "sampler.solver=lcm draws noise at every step"),
        (
            ("rollout.row_buckets=true", "cluster.mode=serial"),
            "rollout.row_buckets=true lets images depend on their company",
        ),
        (("reward.preset=phase1", "reward.bound=null"), "observation.kind=latent scores only the returned image"),
        (("rollout.workers=4000",), "4000 rollout workers"),
        (("rollout.gpus_per_worker=900",), "GPUs"),
        (("resume=absent",), "absent is no run folder"),
        (("backbone.kind=stable_diffusion", "backbone.path=./absent", "cluster.mode=serial"), "backbone.path=./absent"),
    ],
)
def test_train_refuses_in_one_sentence_and_writes_nothing(place: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke("train", *arguments)
    assert words.lower() in sentence(result).lower()
    assert list(place.iterdir()) == []


def test_a_run_folder_that_exists_is_refused(place: Path) -> None:
    (place / "old").mkdir()
    assert "run folder old exists already" in sentence(invoke("train", "run.dir=old")).lower()
    assert list((place / "old").iterdir()) == []


def test_a_prompt_file_of_no_text_is_refused(place: Path) -> None:
    (place / "prompts.txt").write_bytes(b"\xff\xfe\xfa")
    assert "prompts.txt" in sentence(invoke("train", "prompts.source=prompts.txt", "cluster.mode=serial"))
    assert [file.name for file in place.iterdir()] == ["prompts.txt"]


def test_resume_needs_a_checkpoint_and_allows_no_other_key(place: Path) -> None:
    """One that has ended and lost its checkpoints; one that was ended before its first draws what is missing."""
    RunFolder.create(place / "run", Config()).write_result({})
    assert "no checkpoint" in sentence(invoke("train", "resume=run"))
    assert "ppo.lr=1" in sentence(invoke("train", "resume=run", "ppo.lr=1"))


def test_a_corrupt_checkpoint_is_refused(place: Path) -> None:
    RunFolder.create(place / "run", Config())
    checkpoint = place / "run" / "checkpoints" / "iteration-000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{ half")
    assert "state.json can't be used" in sentence(invoke("train", "resume=run"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "image.jpg"), "ends in .png"),
        (("--out", "absent/image.png"), "absent is no folder"),
        (("--policy", "absent"), "absent is no run folder"),
        (("ppo.lrr=1",), "unknown key ppo.lrr"),
    ],
)
def test_sample_refuses_in_one_sentence(place: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke("sample", "a red circle", *arguments)
    assert words in sentence(result).lower()
    assert list(place.iterdir()) == []


def test_an_empty_prompt_is_refused(place: Path) -> None:
    assert "the prompt is empty" in sentence(invoke("sample", "  "))


def test_embedded_train_refuses_an_unknown_part(place: Path) -> None:
    result = invoke("embedded", "train", "--out", "weights", "--part", "engine")
    assert "no part 'engine'" in sentence(result)
    assert list(place.iterdir()) == []
