"""Hard negatives: captions that differ from a true one in a single fact, so that they are false of its image.

Without them a contrastive model is content with the right colours somewhere in the picture. Every edit touches
something the caption says, so the image surely contradicts the result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from addiffusion.embedded.world.scenes import BACKGROUNDS, COLORS, SHAPES
from addiffusion.errors import PromptError

_OPPOSITES: Final = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "small": "large",
    "large": "small",
    "top": "bottom",
    "bottom": "top",
}
_DIRECTIONS: Final = ("above", "below", "left", "right", "top", "bottom")
_COUNTS: Final = ("two", "three", "four")
_OFFERED_COUNTS: Final = ("two", "three")
_PLURALS: Final = tuple(shape + "s" for shape in SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sentence:
    """A caption cut before ``on``: object and background tones share names, but not meaning."""

    objects: list[str]
    background: list[str]


def contradict(caption: str, rng: random.Random) -> str:
    """``caption`` with one colour, shape, count, size, direction, binding or background changed.

    The kind is drawn uniformly from those that apply.

    Raises:
        PromptError: the sentence names no object of the embedded world.
    """
    words = caption.split()
    end = words.index("on") if "on" in words else len(words)
    sentence = _Sentence(objects=words[:end], background=words[end:])
    for edit in rng.sample(_EDITS, len(_EDITS)):
        changed = edit(sentence, rng)
        if changed is not None:
            return " ".join(_with_articles([*changed.objects, *changed.background]))
    raise PromptError(
        f"Caption {caption!r} names no object of the embedded world; write it in the caption grammar.", caption=caption
    )


def _recolour(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    return _replace_one(sentence, tuple(COLORS), lambda word: _other(word, tuple(COLORS), rng), rng)


def _reshape(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    def change(word: str) -> str:
        return _other(word, _PLURALS if word in _PLURALS else SHAPES, rng)

    return _replace_one(sentence, (*SHAPES, *_PLURALS), change, rng)


def _recount(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    return _replace_one(sentence, _COUNTS, lambda word: _other(word, _OFFERED_COUNTS, rng), rng)


def _resize(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    return _replace_one(sentence, ("small", "large"), _OPPOSITES.__getitem__, rng)


def _move(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    """Turn the relation round, at all its mentions, or move the place."""
    said = [word for word in _DIRECTIONS if word in sentence.objects]
    if not said:
        return None
    turned = rng.choice(said)
    objects = [_OPPOSITES[word] if word == turned else word for word in sentence.objects]
    return _Sentence(objects=objects, background=sentence.background)


def _swap_binding(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    """Exchange the colours of two object groups: the same words, bound the other way round."""
    places = [index for index, word in enumerate(sentence.objects) if word in COLORS]
    one, two = rng.sample(places, 2) if len(places) > 1 else (0, 0)
    if sentence.objects[one] == sentence.objects[two]:
        return None
    objects = list(sentence.objects)
    objects[one], objects[two] = objects[two], objects[one]
    return _Sentence(objects=objects, background=sentence.background)


def _retone(sentence: _Sentence, rng: random.Random) -> _Sentence | None:
    """Another background tone: the last word but one of "on a striped gray background"."""
    if not sentence.background:
        return None
    *start, tone, end = sentence.background
    return _Sentence(objects=sentence.objects, background=[*start, _other(tone, tuple(BACKGROUNDS), rng), end])


def _replace_one(
    sentence: _Sentence, allowed: Sequence[str], change: Callable[[str], str], rng: random.Random
) -> _Sentence | None:
    """``change`` applied to one of the object words in ``allowed``, or None without such a word."""
    places = [index for index, word in enumerate(sentence.objects) if word in allowed]
    if not places:
        return None
    objects = list(sentence.objects)
    place = rng.choice(places)
    objects[place] = change(objects[place])
    return _Sentence(objects=objects, background=sentence.background)


def _other(word: str, choices: Sequence[str], rng: random.Random) -> str:
    return rng.choice([choice for choice in choices if choice != word])


def _with_articles(words: Sequence[str]) -> list[str]:
    """``a`` or ``an`` as the following word wants it."""
    return [
        ("an" if after[:1] in tuple("aeiou") else "a") if word in ("a", "an") else word
        for word, after in zip(words, [*words[1:], ""], strict=True)
    ]


_EDITS: Final[tuple[Callable[[_Sentence, random.Random], _Sentence | None], ...]] = (
    _recolour,
    _reshape,
    _recount,
    _resize,
    _move,
    _swap_binding,
    _retone,
)
