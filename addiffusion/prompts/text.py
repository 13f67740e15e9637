"""Text of prompts as it comes: lines of files, and characters that are no text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from addiffusion.errors import PromptError

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, stripped; LF, CR LF and CR end a line alike.

    Raises:
        PromptError: it can't be read, or a line is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PromptError(
            f"The prompt file {path} can't be read ({error.strerror}): give a UTF-8 file of prompts as "
            "prompts.source, or as --prompts.",
            path=str(path),
        ) from error
    return [(number, _decode(path, number, line)) for number, line in enumerate(_LINE_END.split(raw), start=1)]


def checked_prompt(text: str, where: str) -> str:
    """The text, where every character of it is one.

    Args:
        text: a prompt from outside.
        where: what an error calls it, such as ``The prompt``.

    Raises:
        PromptError: half of a surrogate pair, or a byte of the command line that is not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{where} has {text[error.start]!a} for character {error.start + 1}, which is no text: give it in "
            "UTF-8, without half of a surrogate pair.",
            character=error.start + 1,
        ) from error
    return text


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").removeprefix("\ufeff").strip(" \x0b\x0c")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"Line {number} of the prompt file {path} is not UTF-8 (byte {error.start + 1} of the line); "
            "save the file as UTF-8.",
            path=str(path),
            line=number,
        ) from error
