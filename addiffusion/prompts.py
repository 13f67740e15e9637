"""Prompt sets: the embedded world's captions, or a text file; each split into disjoint train, validation and test."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from addiffusion.config import PromptsSection
from addiffusion.embedded.captions import Requirement, parse_caption, write_caption
from addiffusion.embedded.scenes import sample_scene
from addiffusion.errors import PromptError
from addiffusion.records import Prompt
from addiffusion.seeds import derive_seed

PromptSet = tuple[Prompt, ...]
Split = Literal["train", "validation", "test"]

SPLIT_SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Share of all scene combinations, or of all lines of a file, that each split owns."""

_SALT = "split 49"
# Only 30 single objects exist. This salt shares them 18 : 6 : 6, every colour and shape among those trained on.
_PATIENCE = 400
"""Draws in a row without a new caption after which a tier's captions count as used up, and repeat."""


def load_prompts(section: PromptsSection, *, split: Split, count: int, seed: int) -> PromptSet:
    """The first ``count`` prompts of a split: a longer set begins with the shorter one of the same seed.

    Texts repeat only once a tier (or the file) has no other left. ``prompt_id`` is the position in the set.

    Raises:
        PromptError: the prompt file can't be read, or is too short to be split.
    """
    if section.source == "embedded":
        labelled = _embedded(section.tiers, split, seed)
    else:
        labelled = ((0, text) for text in _file_lines(Path(section.source), split, seed))
    return tuple(
        Prompt(prompt_id=index, text=text, tier=tier) for index, (tier, text) in enumerate(islice(labelled, count))
    )


def split_of(caption: str) -> Split:
    """The split that owns an embedded caption.

    It hangs on what is asked for alone (counts, colours, shapes, and the axis of the relation), so another size,
    order or background never carries a combination from one split to another.

    Raises:
        PromptError: the caption is outside the grammar.
    """
    draw = derive_seed(_SALT, _combination(parse_caption(caption))) / 2**63
    for split, share in SPLIT_SHARES.items():
        if draw < share:
            return split
        draw -= share
    return "test"


def _combination(requirement: Requirement) -> str:
    groups = sorted(f"{group.count} {group.color} {group.shape}" for group in requirement.groups)
    # "a left of b" and "b right of a" are the same picture
    beside = requirement.relation in ("left of", "right of")
    axis = "" if requirement.relation is None else "beside" if beside else "stacked"
    return "|".join([axis, *groups])


def _embedded(tiers: Sequence[int], split: Split, seed: int) -> Iterator[tuple[int, str]]:
    streams = [(tier, _captions(tier, split, seed)) for tier in dict.fromkeys(tiers)]
    for tier, captions in cycle(streams):
        yield tier, next(captions)


def _captions(tier: int, split: Split, seed: int) -> Iterator[str]:
    """Minimal captions of one tier and split, in rounds without a repetition."""
    rng = random.Random(derive_seed(seed, "prompts", split, tier))  # noqa: S311 - no secret
    seen: set[str] = set()
    while True:
        fresh = _fresh_caption(rng, tier, split, seen)
        if fresh is None:
            seen.clear()
        else:
            seen.add(fresh)
            yield fresh


def _fresh_caption(rng: random.Random, tier: int, split: Split, seen: set[str]) -> str | None:
    for _ in range(_PATIENCE):
        caption = write_caption(sample_scene(rng, tier), rng, "minimal")
        if caption not in seen and split_of(caption) == split:
            return caption
    return None


def _file_lines(path: Path, split: Split, seed: int) -> Iterator[str]:
    lines = _cut(path, _read_lines(path))[split]
    return cycle(sorted(lines, key=lambda text: derive_seed(seed, "prompts", split, text)))


def _cut(path: Path, lines: Sequence[str]) -> dict[Split, list[str]]:
    """Splits by rank of the lines' hashes, at least one line each, whatever their order in the file."""
    if len(lines) < len(SPLIT_SHARES):
        raise PromptError(
            f"The prompt file {path} holds {len(lines)} different prompts; it needs at least {len(SPLIT_SHARES)}, "
            "one each for training, validation and test.",
            path=str(path),
            prompts=len(lines),
        )
    ranked = sorted(lines, key=lambda text: derive_seed(_SALT, text))
    held_out = {split: max(1, round(SPLIT_SHARES[split] * len(lines))) for split in ("validation", "test")}
    test_from = len(lines) - held_out["test"]
    validation_from = test_from - held_out["validation"]
    return {
        "train": ranked[:validation_from],
        "validation": ranked[validation_from:test_from],
        "test": ranked[test_from:],
    }


def _read_lines(path: Path) -> list[str]:
    """Different prompts of a UTF-8 file, one per line; blank lines and lines that begin with # are skipped."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PromptError(
            f"The prompt file {path} can't be read ({error.strerror}); set prompts.source to a text file with one "
            "prompt per line, or to 'embedded'.",
            path=str(path),
        ) from error
    lines = [_decode(path, number, line) for number, line in enumerate(raw.split(b"\n"), start=1)]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").removeprefix("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise PromptError(
            f"Line {number} of the prompt file {path} is not UTF-8 (byte {error.start + 1} of the line); "
            "save the file as UTF-8.",
            path=str(path),
            line=number,
        ) from error
