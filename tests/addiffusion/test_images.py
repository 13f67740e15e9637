"""Images as they lie on people's disks: what a scorer sees is what a viewer shows."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from addiffusion.errors import EvaluationError
from addiffusion.images import read_image

SCENE = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)


def stored(orientation: int) -> np.ndarray:
    """The pixels that a camera held so leaves, with its EXIF orientation, for a viewer to show SCENE."""
    undo: dict[int, Any] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    return np.ascontiguousarray(undo[orientation](SCENE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.webp"):
        Image.fromarray(stored(orientation)).save(tmp_path / name, exif=exif, lossless=True)
        np.testing.assert_array_equal(read_image(tmp_path / name), SCENE)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bits_are_scaled(tmp_path: Path, name: str) -> None:
    grey = np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert found.dtype == np.uint8
    assert len(np.unique(found)) == 256
    np.testing.assert_allclose(found[:, :, 0], grey / 257, atol=0.5)


def test_the_transparent_value_of_16_bits_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "a.png", transparency=257)
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(("values", "words"), [(np.float32, "floating-point"), (np.int32, "32-bit whole")])
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, values: Any, words: str) -> None:
    Image.fromarray(np.ones((8, 8), values)).save(tmp_path / "a.tiff")
    with pytest.raises(EvaluationError, match=rf"a\.tiff has {words} numbers for pixels, .*8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "RGB"])
def test_nobody_sees_what_lies_behind_transparent_pixels(tmp_path: Path, mode: str) -> None:
    hidden = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    hidden.putpixel((0, 0), (0, 0, 0, 255))
    file = tmp_path / ("a.tiff" if mode == "PA" else "a.png")
    if mode == "P":
        red = Image.new("RGB", (8, 8), (255, 0, 0)).quantize(2)
        red.save(file, transparency=red.getpixel((0, 0)))
    elif mode == "RGB":
        Image.new("RGB", (8, 8), (255, 0, 0)).save(file, transparency=(255, 0, 0))
    elif mode == "PA":
        hidden.convert("LA").save(file)
    else:
        hidden.convert(mode).save(file)
    found = read_image(file)
    assert (found[1:] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0, 0], [255, 127, 127], atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
def test_other_colours_are_what_they_were(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(SCENE).convert(mode)
    image.save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), np.asarray(image.convert("RGB")))


def test_a_long_text_in_a_png_does_no_harm(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("workflow", "a node, " * 400_000, zip=True)
    text.add_text("prompt", "a node, " * 400_000, zip=True)
    Image.fromarray(SCENE).save(tmp_path / "a.png", pnginfo=text)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), SCENE)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A file of some hundred bytes whose header says 30000 x 30000."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, format="BMP")
    bomb = bytearray(buffer.getvalue())
    bomb[18:26] = (30_000).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(bomb)
    with pytest.raises(EvaluationError, match=r"bomb\.bmp has too many pixels to be read .*: give a smaller image"):
        read_image(tmp_path / "bomb.bmp")


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for name, words in (("absent.png", "can't be read: No such file"), ("notes.txt", "is no image file: give PNG")):
        with pytest.raises(EvaluationError, match=words):
            read_image(tmp_path / name)
    with pytest.raises(EvaluationError, match="can't be read: Is a directory"):
        read_image(tmp_path)


def outcome(path: Path) -> tuple[np.ndarray | None, EvaluationError | None]:
    try:
        return read_image(path), None
    except EvaluationError as error:
        return None, error


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"]), st.data())
def test_a_damaged_image_is_read_or_refused_with_its_name(form: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(SCENE).save(buffer, format=form)
    content = bytearray(buffer.getvalue()[: data.draw(st.integers(0, len(buffer.getvalue())))])
    for place in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=8)) if content else ():
        content[place] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(content)
        found, refused = outcome(path)
    if refused is None:
        assert found is not None
        assert (found.ndim, found.dtype) == (3, np.uint8)
    else:
        assert str(path) in refused.message
        assert refused.message.endswith(".")
