"""Prompt sets: the embedded world's captions, or a text file; each split into disjoint train, validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

from addiffusion.config import PromptsSection
from addiffusion.embedded.benchmark import benchmark_captions
from addiffusion.embedded.splits import SPLIT_SHARES, Split
from addiffusion.errors import PromptError
from addiffusion.records import Prompt
from addiffusion.seeds import derive_seed

PromptSet = tuple[Prompt, ...]

_SALT = "split 49"


def load_prompts(section: PromptsSection, *, split: Split, count: int, seed: int) -> PromptSet:
    """The first ``count`` prompts of a split: a longer set begins with the shorter one of the same seed.

    Texts repeat only once a tier (or the file) has no other left. ``prompt_id`` is the position in the set.

    Raises:
        PromptError: the prompt file can't be read, is too short to be split, or has no such split.
    """
    if section.source == "embedded":
        labelled = _embedded(section.tiers, split, seed)
    else:
        labelled = ((0, text) for text in _file_lines(Path(section.source), split, seed))
    return tuple(
        Prompt(prompt_id=index, text=text, tier=tier) for index, (tier, text) in enumerate(islice(labelled, count))
    )


def _embedded(tiers: Sequence[int], split: Split, seed: int) -> Iterator[tuple[int, str]]:
    streams = [(tier, benchmark_captions(tier, split, seed)) for tier in dict.fromkeys(tiers)]
    for tier, captions in cycle(streams):
        yield tier, next(captions)


def _file_lines(path: Path, split: Split, seed: int) -> Iterator[str]:
    if split not in SPLIT_SHARES:
        raise PromptError(
            f"A prompt file has no {split} split; set prompts.test_split to test or validation, "
            "or prompts.source to 'embedded'.",
            split=split,
        )
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
