"""Image files: read as scorers and metrics take them (upright, opaque, eight bits a channel), written as PNG."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from addiffusion.errors import EvaluationError
from addiffusion.files import make_folder, whole_file

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
"""Programs leave whole workflows in a PNG's text, of which nothing is needed but that the pixels are found."""

_DAMAGED: Final = (SyntaxError, ValueError, EOFError, OverflowError, IndexError, KeyError, TypeError, struct.error,
                   zlib.error)  # fmt: skip
"""What Pillow's readers raise on broken files beside OSError."""
_BACKGROUND: Final = "white"
"""Behind transparent pixels, whose own colour nobody has seen."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: turned as its EXIF data say, on white where it is transparent, 16 bits scaled to 8.

    Raises:
        EvaluationError: it can't be read, is no image or a damaged one, has too many pixels, or pixels without a
            known white (32-bit and float files).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _pixels(path, ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise EvaluationError(
            f"{path} has too many pixels to be read ({error}): give a smaller image.", path=str(path)
        ) from error
    except UnidentifiedImageError as error:
        raise EvaluationError(f"{path} is no image file: give PNG, JPEG or WebP files.", path=str(path)) from error
    except OSError as error:
        if error.strerror:
            raise EvaluationError(f"{path} can't be read: {error.strerror}.", path=str(path)) from error
        raise _damaged(path, error) from error
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image (H, W, 3), whole or not at all.

    Raises:
        OutputError: the disk is full, or can't be written.
    """
    make_folder(path.parent)
    with whole_file(path) as draft:
        Image.fromarray(image).save(draft, format="PNG")


def data_url(image: Image.Image) -> str:
    """An image as a PNG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _pixels(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image), image.info.get("transparency"))
    if image.mode in ("I", "F"):
        kind = "32-bit whole" if image.mode == "I" else "floating-point"
        raise EvaluationError(
            f"{path} has {kind} numbers for pixels, of which nobody knows what white is: save it with 8 or 16 bits a "
            "channel, such as PNG.",
            path=str(path),
            mode=image.mode,
        )
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, _BACKGROUND)
        image = Image.alpha_composite(background, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _from_16_bits(grey: NDArray[np.uint16], transparent: int | None) -> NDArray[np.uint8]:
    """(H, W, 3) of (H, W); white is 65535, and so is the value that stands for transparent pixels."""
    opaque = grey if transparent is None else np.where(grey == transparent, 65535, grey)
    return np.repeat(np.round(opaque / 257).astype(np.uint8)[:, :, None], 3, axis=2)


def _damaged(path: Path, error: Exception) -> EvaluationError:
    return EvaluationError(f"{path} is a damaged image ({error}): replace it or take it out.", path=str(path))
