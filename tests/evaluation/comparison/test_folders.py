"""Folders of images: what is read, and how every kind of bad input is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from addiffusion.errors import EvaluationError, PromptError
from evaluation.comparison.folders import check_same_names, load_folder, prompts_of


def fill(folder: Path, count: int, *, size: int = 16, seed: int = 0) -> Path:
    """Images 0.png, 1.png, ... of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(draws.integers(0, 255, (size, size, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def test_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    found = load_folder(fill(tmp_path / "a", 3))
    assert found.names == ("0.png", "1.png", "2.png")
    assert found.images.shape == (3, 16, 16, 3)
    assert np.array_equal(found.images[1], np.asarray(Image.open(tmp_path / "a" / "1.png")))


def test_what_is_no_folder_or_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is no folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(EvaluationError, match=r"holds no images: none of its files ends in \.png"):
        load_folder(tmp_path)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", 2, size=64)
    file = folder / "1.png"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(EvaluationError, match=r"1\.png is a damaged image .*: replace it or take it out"):
        load_folder(folder)


def test_images_of_two_sizes_are_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", 2)
    Image.new("RGB", (8, 20)).save(folder / "z.png")
    with pytest.raises(EvaluationError, match=r"z\.png is 8 x 20 pixels and 0\.png 16 x 16"):
        load_folder(folder)


def test_folders_that_do_not_belong_together_say_what_is_missing(tmp_path: Path) -> None:
    one, other = load_folder(fill(tmp_path / "a", 3)), load_folder(fill(tmp_path / "b", 2))
    with pytest.raises(EvaluationError, match=r"3 images and .* 2, and 1 names .*b has no 2\.png"):
        check_same_names(one, other)
    check_same_names(one, load_folder(fill(tmp_path / "c", 3)))


def test_prompts_must_be_as_many_as_images(tmp_path: Path) -> None:
    folder = load_folder(fill(tmp_path / "a", 2))
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\n\na blue square\n")
    assert prompts_of(folder, file) == ("a red circle", "a blue square")
    file.write_text("a red circle\n")
    with pytest.raises(EvaluationError, match=r"1 prompts and .* 2 images: give one line per image"):
        prompts_of(folder, file)
    with pytest.raises(EvaluationError, match="Nothing says what the images"):
        prompts_of(folder, None)
    with pytest.raises(PromptError, match="can't be read"):
        prompts_of(folder, tmp_path / "nowhere.txt")
    file.write_bytes("\ufeffa red circle\ra blue square".encode())
    assert prompts_of(folder, file) == ("a red circle", "a blue square")


def test_a_folder_shows_images_as_they_are_seen(tmp_path: Path) -> None:
    fill(tmp_path / "a", 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = np.asarray(Image.open(tmp_path / "a" / "0.png"))
    Image.fromarray(np.rot90(seen)).save(tmp_path / "a" / "1.png", exif=exif)
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a" / "2.png")
    found = load_folder(tmp_path / "a").images
    assert np.array_equal(found[1], seen)
    assert (found[2] == 255).all()
