"""`addiffusion score`: every score of some files, and what can't be scored said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from addiffusion.embedded.world.data import scene_batch
from launch.cli.app import app

SCENES = scene_batch(3, 0, 2)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"scene{number}.png" for number in range(2)]
    for path, pixels in zip(paths, SCENES.images, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["score", *arguments])


@pytest.mark.parametrize(
    "command", [["score"], ["reward"], ["reward", "status"], ["reward", "stop"], ["bench", "reward"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_json_has_every_score_of_every_image(images: list[Path]) -> None:
    result = invoke(*map(str, images), "--prompt", SCENES.captions[0], "--json")
    assert result.exit_code == 0, result.output
    scored = json.loads(result.stdout)
    names = [score["name"] for score in scored["scores"]]
    assert names == ["clip", "aesthetic", "image_reward", "scene_soft", "scene_strict"]
    assert [image["path"] for image in scored["images"]] == [str(path) for path in images]
    assert all(list(image["scores"]) == names for image in scored["images"])
    right, wrong = (image["scores"] for image in scored["images"])
    assert right["scene_soft"] > wrong["scene_soft"]


def test_the_table_explains_what_is_missing(images: list[Path]) -> None:
    result = invoke(str(images[0]), "--prompt", "a unicorn")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "aesthetic" in words
    assert "unicorn" in words
    assert "scene_soft" in words


def test_what_is_no_image_or_of_another_size_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "small.png")
    for name, words in (
        ("absent.png", "absent.png can't be read"),
        ("notes.txt", "notes.txt is no image file"),
        ("small.png", "small.png is 48 x 32 pixels, but the embedded scorers judge 64 x 64 ones"),
    ):
        result = invoke(str(tmp_path / name), "--prompt", "a red circle")
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split()), result.stderr


def test_weights_that_are_missing_are_one_sentence(images: list[Path]) -> None:
    result = invoke(str(images[0]), "-p", "x", "-s", "scorers.kind=pretrained", "-s", "scorers.clip.weights=/absent.pt")
    assert result.exit_code == 2
    assert "scorers.clip.weights=/absent.pt does not give open_clip_model.safetensors" in result.stderr


def test_a_turned_photograph_has_the_scores_of_the_upright_one(images: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    Image.fromarray(np.rot90(SCENES.images[0])).save(turned, exif=exif)
    result = invoke(str(images[0]), str(turned), "--prompt", SCENES.captions[0], "--json")
    assert result.exit_code == 0, result.output
    upright, photograph = (image["scores"] for image in json.loads(result.stdout)["images"])
    assert upright == pytest.approx(photograph)


def test_a_prompt_that_is_no_text_is_one_sentence(images: list[Path]) -> None:
    result = invoke(str(images[0]), "--prompt", "a red \udcff circle")
    assert result.exit_code == 2
    assert r"The prompt has '\udcff' for character 7, which is no text" in " ".join(result.stderr.split())
