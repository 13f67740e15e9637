"""One pair of images of one prompt: how the judge is asked, and what a reply and a pair of replies mean."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from addiffusion.images import data_url

QUESTION = (
    "Two images, A and B, were made for the same prompt. Judge which one fits the prompt better (objects, counts, "
    "colours, places), and between two that fit alike, which one is drawn better (sharpness, no artefacts). Ignore the "
    "order in which they are shown. Think in at most two sentences, then end with one line: WINNER: A, WINNER: B, or "
    "WINNER: TIE when you can't tell.\n\nPrompt: "
)
# A line that ends with the verdict and says `winner` once: not "the winner, a blue one", not "WINNER: A or WINNER: B".
_NAMED = re.compile(r"^(?:(?!winner).)*\bwinner\W*[:=-]\W*(?:image\W+)?(A|B|TIE)\W*$", re.IGNORECASE | re.MULTILINE)
_BARE = re.compile(r"\W*(A|B|TIE)\W*", re.IGNORECASE)


class Choice(StrEnum):
    """What one reply says."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


class Outcome(StrEnum):
    """What both orders together say."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    INVALID = "invalid"
    """One of the orders never got a reply that names a winner."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contest:
    """Two contestants' images of the same prompt and seed."""

    prompt: str
    left: str
    """Name of a contestant."""
    right: str
    left_image: NDArray[np.uint8]
    """(H, W, 3)."""
    right_image: NDArray[np.uint8]
    """(H, W, 3)."""

    def swapped(self) -> Contest:
        """The same contest in the other order."""
        return Contest(
            prompt=self.prompt,
            left=self.right,
            right=self.left,
            left_image=self.right_image,
            right_image=self.left_image,
        )

    def identical(self) -> bool:
        """Whether both images are the same, pixel by pixel."""
        return np.array_equal(self.left_image, self.right_image)

    def messages(self) -> list[dict[str, Any]]:
        """The question in the chat protocol, left image first; images travel as PNG inside the request."""
        content = [
            {"type": "text", "text": QUESTION + self.prompt},
            {"type": "text", "text": "Image A:"},
            {"type": "image_url", "image_url": {"url": data_url(Image.fromarray(self.left_image))}},
            {"type": "text", "text": "Image B:"},
            {"type": "image_url", "image_url": {"url": data_url(Image.fromarray(self.right_image))}},
        ]
        return [{"role": "user", "content": content}]

    def key(self, model: str) -> str:
        """What a verdict depends on: model, question, prompt, pixels and order. Not who drew them."""
        pixels = [_digest(self.left_image), _digest(self.right_image)]
        return hashlib.sha256(json.dumps([model, QUESTION, self.prompt, *pixels]).encode()).hexdigest()


def read_choice(reply: str) -> Choice | None:
    """The winner a reply names; None when it names none, or two."""
    bare = _BARE.fullmatch(reply)
    named = {bare[1].upper()} if bare else {name.upper() for name in _NAMED.findall(reply)}
    if len(named) != 1:
        return None
    return {"A": Choice.FIRST, "B": Choice.SECOND, "TIE": Choice.TIE}[named.pop()]


def settle(straight: Choice | None, swapped: Choice | None) -> Outcome:
    """A win only where both orders agree; anything else that could be read is a tie.

    Judges prefer a position: Zheng et al., "Judging LLM-as-a-Judge", arXiv:2306.05685, section 3.4.
    """
    match straight, swapped:
        case (None, _) | (_, None):
            return Outcome.INVALID
        case Choice.FIRST, Choice.SECOND:
            return Outcome.LEFT
        case Choice.SECOND, Choice.FIRST:
            return Outcome.RIGHT
        case _:
            return Outcome.TIE


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
