"""How much a prompt asks for: objects, attributes and relations, counted by word lists. No model, no grammar.

    complexity = objects + attributes + relations;   tier 1: at most 2,   tier 2: at most 5,   tier 3: more

*Relations* are the phrases of ``RELATIONS`` (the longest first). *Objects* are the pieces between relations, commas
and "and" or "with" that hold a word beside articles. *Attributes* are the words of ``ATTRIBUTES``, numbers included.
It is crude, and meant for one thing: to order prompts of one set from simple to crowded where the set has no labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

RELATIONS: Final = (
    "to the left of", "to the right of", "on the left of", "on the right of", "on the side of", "on top of",
    "in front of", "in the middle of", "next to", "close to", "left of", "right of", "inside", "outside", "between",
    "behind", "beside", "above", "below", "under", "underneath", "beneath", "near", "over", "around", "through",
    "across", "against", "among", "along", "into", "onto", "on", "in", "at", "holding", "riding", "wearing", "carrying",
    "eating", "chasing", "playing", "sitting", "standing", "flying", "looking", "leaning", "hanging", "covered",
)  # fmt: skip
"""Prepositions of place and the verbs that most often join two things."""
_COLORS: Final = (
    "red orange yellow green blue purple violet pink brown black white gray grey golden gold silver beige turquoise "
    "teal cyan magenta maroon navy crimson scarlet dark light bright pale colorful colourful"
)
_SIZES: Final = "small tiny little big large huge giant tall short long thick thin wide narrow"
_MATERIALS: Final = (
    "wooden metal metallic plastic glass leather fabric rubber stone brick ceramic paper steel iron fluffy furry shiny "
    "smooth rough soft glossy transparent"
)
_PATTERNS: Final = "striped checkered dotted spotted patterned plain gradient"
_SHAPES: Final = "round rectangular triangular circular oval cubic conical spherical cylindrical"
_NUMBERS: Final = "two three four five six seven eight nine ten eleven twelve dozen several many"
ATTRIBUTES: Final = frozenset(" ".join((_COLORS, _SIZES, _MATERIALS, _PATTERNS, _SHAPES, _NUMBERS)).split())
"""Words that say what an object is like, or how many there are."""
_EMPTY: Final = frozenset(("a", "an", "the", "of", "is", "are", "to", "its", "his", "her", "their", "there"))
_MOST_OF_TIER: Final = {1: 2, 2: 5}

_RELATION = re.compile(r"\b(?:" + "|".join(re.escape(phrase) for phrase in RELATIONS) + r")\b")
_SEPARATOR = re.compile(r"\||,|;|\.|\band\b|\bwith\b")
_WORD = re.compile(r"[a-z']+|\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexity:
    """Counts of what a prompt asks for."""

    objects: int
    attributes: int
    relations: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.objects + self.attributes + self.relations

    @property
    def tier(self) -> int:
        """1 to 3."""
        return next((tier for tier, most in _MOST_OF_TIER.items() if self.total <= most), 3)


def complexity(text: str) -> Complexity:
    """Count the objects, attributes and relations of a prompt, in English; at least one object."""
    pieces, relation_count = _RELATION.subn("|", text.lower())
    words = [_WORD.findall(piece) for piece in _SEPARATOR.split(pieces)]
    described = [word for piece in words for word in piece if word in ATTRIBUTES or word.isdigit()]
    objects = sum(any(word not in _EMPTY for word in piece) for piece in words)
    return Complexity(objects=max(objects, 1), attributes=len(described), relations=relation_count)
