"""Values and keys as a sentence shows them: on one line, printable, and short."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

LIMIT = 60
"""Characters of a value that a sentence shows."""


class _Short(reprlib.Repr):
    """`repr` that reads no more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 12
        self.maxstring = self.maxother = LIMIT

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - the library's signature
        """A number, or how large it is: Python does not write out more than 4300 digits."""
        if x.bit_length() < 200:
            return repr(x)
        return f"a number of about {int(x.bit_length() * 0.30103)} digits"


def shown(value: object) -> str:
    """``value`` in at most ``LIMIT`` characters of `repr`."""
    return shortened(_Short().repr(value))


def shortened(text: str) -> str:
    """``text`` cut to ``LIMIT`` characters, and how long it was."""
    return text if len(text) <= LIMIT else f"{text[: LIMIT - 3]}..."


def quoted(text: str) -> str:
    """Somebody's ``text`` in quotes, short; by `repr` where it has characters that would do something to a terminal."""
    return f'"{shortened(text)}"' if text.isprintable() else shown(text)


def dotted(path: Sequence[int | str]) -> str:
    """A key as `section.key`, with whatever somebody has typed there made printable and short."""
    return ".".join(_part(str(part)) for part in path)


def _part(part: str) -> str:
    return shortened(part) if part.isprintable() and part else shown(part)
