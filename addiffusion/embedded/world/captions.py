"""Captions of scenes, and what a caption requires of an image. Writer and parser share one small grammar.

    caption  = group {relation group} ["in the" position] ["on a" [texture] background "background"]
    group    = (a | an | two | three | four) [small | large] color shape

All relations of a caption are the same one. "medium" is never said: an unsaid size may be any.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from addiffusion.embedded.world.scenes import BACKGROUNDS, COLORS, POSITIONS, RELATIONS, SHAPES, TEXTURES, Group, Scene
from addiffusion.errors import PromptError

Detail = Literal["random", "full", "minimal"]
"""How much a caption says: ``random`` drops sizes and backgrounds at random (training), ``full`` says all,
``minimal`` says what the tier is about."""

NUMBERS = MappingProxyType({1: "a", 2: "two", 3: "three", 4: "four"})
"""Count words; 1 is "an" before a vowel. No scene has four of a kind, but a prompt may ask for them."""
MAX_GROUPS = 3
"""More groups would not fit the 24 tokens of the text encoders."""
SAID_SIZES = ("small", "large")
"""Sizes that have a word."""

_COUNTS = {word: count for count, word in NUMBERS.items()} | {"an": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredGroup:
    """``count`` objects, no more and no fewer, of one colour and shape."""

    count: int
    size: str | None
    color: str
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a caption says. None means that it is silent and anything goes."""

    groups: tuple[RequiredGroup, ...]
    relation: str | None
    position: str | None
    texture: str | None
    """"plain" when a background is named without a texture; None exactly when ``background`` is."""
    background: str | None


def write_caption(scene: Scene, rng: random.Random, detail: Detail = "random") -> str:
    """Describe ``scene`` in at most 22 words; ``rng`` decides what is left out."""
    size_share, background_share = _shares(scene.tier, detail)
    phrases = [_phrase(group, size=rng.random() < size_share) for group in scene.groups]
    text = f" {scene.relation} ".join(phrases)
    if scene.position is not None:
        text += f" in the {scene.position}"
    if rng.random() < background_share:
        texture = "" if scene.texture == "plain" else f"{scene.texture} "
        text += f" on a {texture}{scene.background} background"
    return text


def _shares(tier: int, detail: Detail) -> tuple[float, float]:
    """Probabilities that a size is said and that the background is said."""
    if detail == "full":
        return 1.0, 1.0
    if detail == "minimal":
        return (0.0 if tier == 1 else 0.5), (1.0 if tier == 3 else 0.0)
    return 0.6, {1: 0.3, 2: 0.4, 3: 0.7}[tier]


def _phrase(group: Group, *, size: bool) -> str:
    words = [group.size] if size and group.size in SAID_SIZES else []
    words += [group.color, group.shape if group.count == 1 else f"{group.shape}s"]
    number = "an" if group.count == 1 and words[0][0] in "aeiou" else NUMBERS[group.count]
    return " ".join([number, *words])


def vocabulary() -> tuple[str, ...]:
    """Every word that the grammar knows, sorted."""
    words = {*_COUNTS, *SAID_SIZES, *COLORS, *BACKGROUNDS, *TEXTURES, *SHAPES, *(f"{shape}s" for shape in SHAPES)}
    words |= {word for phrase in (*RELATIONS, *POSITIONS) for word in phrase.split()}
    return tuple(sorted(words | {"in", "the", "on", "background"}))


def parse_caption(text: str) -> Requirement:
    """What ``text`` requires.

    Raises:
        PromptError: the text is outside the grammar; the message names the word it stopped at.
    """
    return _Parser(text).caption()


class _Parser:
    """Recursive descent over the words of one caption."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = text.split()
        self._at = 0

    def caption(self) -> Requirement:
        groups, relation = [self._group()], None
        while (found := self._take_phrase(RELATIONS if relation is None else (relation,))) is not None:
            relation = found
            groups.append(self._group())
        position = self._need(POSITIONS, "a position") if self._take_phrase(("in the",)) else None
        texture, background = self._background() if self._take_phrase(("on a",)) else (None, None)
        self._finish(groups)
        return Requirement(
            groups=tuple(groups), relation=relation, position=position, texture=texture, background=background
        )

    def _group(self) -> RequiredGroup:
        count = _COUNTS[self._need(tuple(_COUNTS), "a count")]
        size = self._take_phrase(SAID_SIZES)
        color = self._need(tuple(COLORS), "a color")
        shape = self._need(SHAPES if count == 1 else tuple(f"{shape}s" for shape in SHAPES), "a shape")
        return RequiredGroup(count=count, size=size, color=color, shape=shape if count == 1 else shape[:-1])

    def _background(self) -> tuple[str, str]:
        texture = self._take_phrase(TEXTURES) or "plain"
        background = self._need(tuple(BACKGROUNDS), "a background tone")
        self._need(("background",), "the end of the background")
        return texture, background

    def _finish(self, groups: list[RequiredGroup]) -> None:
        if self._at < len(self._words):
            raise self._error("the end")
        if len(groups) > MAX_GROUPS:
            raise PromptError(
                f"The prompt {self._text!r} names {len(groups)} groups of objects; at most {MAX_GROUPS} are known.",
                prompt=self._text,
                groups=len(groups),
            )
        if len({(group.color, group.shape) for group in groups}) < len(groups):
            raise PromptError(
                f"The prompt {self._text!r} names one color and shape twice; say their count once instead.",
                prompt=self._text,
            )

    def _take_phrase(self, phrases: tuple[str, ...]) -> str | None:
        for phrase in phrases:
            words = phrase.split()
            if self._words[self._at : self._at + len(words)] == words:
                self._at += len(words)
                return phrase
        return None

    def _need(self, phrases: tuple[str, ...], what: str) -> str:
        found = self._take_phrase(phrases)
        if found is None:
            raise self._error(f"{what} ({', '.join(phrases)})")
        return found

    def _error(self, expected: str) -> PromptError:
        word = self._words[self._at] if self._at < len(self._words) else "its end"
        return PromptError(
            f"The prompt {self._text!r} is outside the grammar of the embedded world: "
            f"at word {self._at + 1} ({word}) it needs {expected}.",
            prompt=self._text,
            word=word,
            expected=expected,
        )
