from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.config import PromptsSection
from addiffusion.embedded.world import Split
from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.splits import HELD_OUT_PAIRS, SPLIT_SHARES, split_of
from addiffusion.errors import PromptError
from addiffusion.prompts import load_prompts

EMBEDDED = PromptsSection()
FILE_SPLITS = tuple(SPLIT_SHARES)
SPLITS: tuple[Split, ...] = (*FILE_SPLITS, "compositional")


def _texts(section: PromptsSection, split: Split, count: int, seed: int = 0) -> list[str]:
    return [prompt.text for prompt in load_prompts(section, split=split, count=count, seed=seed)]


def _combination(caption: str) -> tuple[frozenset[tuple[int, str, str]], str | None]:
    required = parse_caption(caption)
    return frozenset((group.count, group.color, group.shape) for group in required.groups), required.relation


@given(st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_splits_share_no_caption_and_no_combination(seed: int) -> None:
    captions = {split: _texts(EMBEDDED, split, 60, seed) for split in SPLITS}
    combinations = {split: {_combination(text) for text in texts} for split, texts in captions.items()}
    for one in SPLITS:
        assert all(split_of(text) == one for text in captions[one])
        for two in SPLITS:
            if one != two:
                assert not set(captions[one]) & set(captions[two])
                assert not combinations[one] & combinations[two]


@given(st.integers(0, 2**32), st.integers(0, 20), st.sampled_from(SPLITS))
@settings(max_examples=10, deadline=None)
def test_a_longer_set_begins_with_the_shorter(seed: int, count: int, split: Split) -> None:
    longer = load_prompts(EMBEDDED, split=split, count=30, seed=seed)
    assert load_prompts(EMBEDDED, split=split, count=count, seed=seed) == longer[:count]
    assert [prompt.prompt_id for prompt in longer] == list(range(30))


def test_unseen_pairs_occur_in_compositional_captions_alone() -> None:
    for split in SPLITS:
        for text in _texts(EMBEDDED, split, 150):
            shown = {(group.color, group.shape) for group in parse_caption(text).groups}
            assert bool(shown & HELD_OUT_PAIRS) == (split == "compositional")


def test_a_tier_that_is_used_up_repeats_all_its_captions_in_rounds() -> None:
    single = [prompt.text for prompt in load_prompts(PromptsSection(tiers=(1,)), split="test", count=24, seed=3)]
    rounds = [single[start : start + 6] for start in range(0, 24, 6)]
    assert all(set(texts) == set(single) for texts in rounds)
    assert len({tuple(texts) for texts in rounds}) > 1


def test_tiers_take_turns() -> None:
    prompts = load_prompts(EMBEDDED, split="train", count=9, seed=1)
    assert [prompt.tier for prompt in prompts] == [1, 2, 3] * 3
    only = load_prompts(PromptsSection(tiers=(2,)), split="train", count=4, seed=1)
    assert {prompt.tier for prompt in only} == {2}
    assert [p.text for p in only[:3]] == [p.text for p in prompts if p.tier == 2]


def test_captions_repeat_only_when_a_tier_is_used_up() -> None:
    prompts = load_prompts(EMBEDDED, split="test", count=60, seed=0)
    by_tier = {tier: Counter(prompt.text for prompt in prompts if prompt.tier == tier) for tier in (1, 2, 3)}
    assert max(by_tier[2].values()) == max(by_tier[3].values()) == 1
    assert max(by_tier[1].values()) - min(by_tier[1].values()) <= 1


def test_seeds_give_other_prompts() -> None:
    assert _texts(EMBEDDED, "train", 30, 0) == _texts(EMBEDDED, "train", 30, 0)
    assert _texts(EMBEDDED, "train", 30, 0) != _texts(EMBEDDED, "train", 30, 1)


def _file(path: Path, content: str | bytes) -> PromptsSection:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return PromptsSection(source=str(path))


def test_a_file_is_cut_into_disjoint_splits(tmp_path: Path) -> None:
    lines = [f"a photo of animal {index}" for index in range(50)]
    section = _file(tmp_path / "prompts.txt", "# animals\n\n" + "\r\n".join([*lines, lines[0], "  "]))
    texts = {split: set(_texts(section, split, 200)) for split in FILE_SPLITS}
    assert {split: len(owned) for split, owned in texts.items()} == {"train": 30, "validation": 10, "test": 10}
    assert set().union(*texts.values()) == set(lines)
    shuffled = _file(tmp_path / "other.txt", "\n".join(reversed(lines)))
    assert {split: set(_texts(shuffled, split, 200)) for split in FILE_SPLITS} == texts
    assert {prompt.tier for prompt in load_prompts(section, split="test", count=5, seed=0)} == {1}


def test_a_short_file_still_has_every_split_and_repeats_in_turn(tmp_path: Path) -> None:
    section = _file(tmp_path / "prompts.txt", "\ufeffein Käse\nzwei\ndrei\n")
    owned = [_texts(section, split, 4) for split in FILE_SPLITS]
    assert {texts[0] for texts in owned} == {"ein Käse", "zwei", "drei"}
    assert all(len(set(texts)) == 1 for texts in owned)


@pytest.mark.parametrize(
    ("content", "says"),
    [("# nothing\n\n", "0 different prompts"), ("a\nb\nb\n", "2 different prompts"), (b"good\nb\xff\nx\n", "Line 2")],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, content: str | bytes, says: str) -> None:
    section = _file(tmp_path / "prompts.txt", content)
    with pytest.raises(PromptError, match=says) as caught:
        load_prompts(section, split="train", count=3, seed=0)
    assert str(tmp_path / "prompts.txt") in caught.value.message


def test_a_file_has_no_compositional_split(tmp_path: Path) -> None:
    section = _file(tmp_path / "prompts.txt", "a\nb\nc\n")
    with pytest.raises(PromptError, match=r"no compositional split; .*prompts\.test_split"):
        load_prompts(section, split="compositional", count=3, seed=0)


@pytest.mark.parametrize("name", ["missing.txt", "missing.csv"])
def test_an_unreadable_file_is_named_with_its_fix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(PromptError, match=r"can't be read .*prompts\.source") as caught:
        load_prompts(PromptsSection(source=str(path)), split="train", count=3, seed=0)
    assert caught.value.facts["path"] == str(path)
