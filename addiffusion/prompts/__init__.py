"""Prompt sets: the embedded world's captions, or a file; each split into disjoint train, validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

from addiffusion.config import PromptsSection
from addiffusion.embedded.world import Split
from addiffusion.embedded.world.benchmark import benchmark_captions
from addiffusion.embedded.world.splits import SPLIT_SHARES
from addiffusion.errors import PromptError
from addiffusion.prompts.formats import PromptEntry, read_entries
from addiffusion.records import Prompt, PromptId
from addiffusion.seeds import derive_seed

PromptSet = tuple[Prompt, ...]

_SALT = "split 49"


def load_prompts(section: PromptsSection, *, split: Split, count: int, seed: int) -> PromptSet:
    """The first ``count`` prompts of a split: a longer set begins with the shorter one of the same seed.

    Texts repeat only once a tier (or the file) has no other left. ``prompt_id`` is the position in the set.

    Args:
        section: source, format and tiers.
        split: which one.
        count: prompts.
        seed: of the order.

    Raises:
        PromptError: the prompt file can't be read, is too short to be split, or has no such split.
    """
    embedded = section.source == "embedded"
    labelled = _embedded(section.tiers, split, seed) if embedded else _of_file(section, split, seed)
    return tuple(
        Prompt(prompt_id=PromptId(index), text=text, tier=tier)
        for index, (tier, text) in enumerate(islice(labelled, count))
    )


def _embedded(tiers: Sequence[int], split: Split, seed: int) -> Iterator[tuple[int, str]]:
    streams = [(tier, benchmark_captions(tier, split, seed)) for tier in dict.fromkeys(tiers)]
    for tier, captions in cycle(streams):
        yield tier, next(captions)


def _of_file(section: PromptsSection, split: Split, seed: int) -> Iterator[tuple[int, str]]:
    if split not in SPLIT_SHARES:
        raise PromptError(
            f"A prompt file has no {split} split; set prompts.test_split to test or validation, "
            "or prompts.source to 'embedded'.",
            split=split,
        )
    path = Path(section.source)
    cut = _cut(path, read_entries(path, section.format))[split]
    entries = [entry for entry in cut if entry.tier in section.tiers]
    if not entries:
        raise PromptError(
            f"The {split} split of the prompt file {path} has no prompt of the tiers {list(section.tiers)}: its tiers "
            f"are {sorted({entry.tier for entry in cut})}, so change prompts.tiers.",
            path=str(path),
            split=split,
        )
    ordered = sorted(entries, key=lambda entry: derive_seed(seed, "prompts", split, entry.text))
    return cycle((entry.tier, entry.text) for entry in ordered)


def _cut(path: Path, entries: Sequence[PromptEntry]) -> dict[Split, list[PromptEntry]]:
    """Splits by rank of the families' hashes, at least one family each, whatever their order in the file."""
    families = {entry.family for entry in entries}
    if len(families) < len(SPLIT_SHARES):
        raise PromptError(
            f"The prompt file {path} holds {len(families)} different prompts; it needs at least {len(SPLIT_SHARES)}, "
            "one each for training, validation and test.",
            path=str(path),
            prompts=len(families),
        )
    ranked = sorted(families, key=lambda family: derive_seed(_SALT, family))
    held_out = {split: max(1, round(SPLIT_SHARES[split] * len(ranked))) for split in ("validation", "test")}
    test_from = len(ranked) - held_out["test"]
    validation_from = test_from - held_out["validation"]
    owners: dict[str, Split] = dict.fromkeys(ranked[:validation_from], "train")
    owners |= dict.fromkeys(ranked[validation_from:test_from], "validation")
    owners |= dict.fromkeys(ranked[test_from:], "test")
    splits: dict[Split, list[PromptEntry]] = {split: [] for split in SPLIT_SHARES}
    for entry in entries:
        splits[owners[entry.family]].append(entry)
    return splits
