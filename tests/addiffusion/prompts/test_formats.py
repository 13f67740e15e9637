"""Each set's published form, in small files of our own sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from addiffusion.config import PromptsSection
from addiffusion.errors import PromptError
from addiffusion.prompts import load_prompts
from addiffusion.prompts.formats import read_entries

SETS = Path(__file__).parent / "sets"


def tiers(name: str) -> dict[str, int]:
    return {entry.text: entry.tier for entry in read_entries(SETS / name, "auto")}


def test_coco_captions_of_one_image_are_one_family_and_tiers_are_measured() -> None:
    entries = read_entries(SETS / "captions.json", "auto")
    assert [entry.family for entry in entries] == ["image 7"] * 2 + ["image 8"] * 2 + ["image 9"] * 2
    assert entries[1].text == "A tabby has its nap"
    assert [entry.tier for entry in entries][:3] == [1, 1, 3]


def test_captions_of_one_image_are_never_in_two_splits() -> None:
    section = PromptsSection(source=str(SETS / "captions.json"))
    family = {entry.text: entry.family for entry in read_entries(SETS / "captions.json", "auto")}
    owned = [
        {family[prompt.text] for prompt in load_prompts(section, split=split, count=10, seed=1)}
        for split in ("train", "validation", "test")
    ]
    assert sorted(name for families in owned for name in families) == ["image 7", "image 8", "image 9"]


def test_drawbench_has_no_labels_of_difficulty() -> None:
    assert tiers("drawbench.csv") == {
        "A mustard jar.": 1,
        "A violin, a hat and a lamp on a long wooden table.": 3,
        "A fox to the left of a ladder": 2,
        "Seven candles.": 1,
    }


def test_parti_tiers_are_its_challenges_and_an_unknown_one_is_measured() -> None:
    assert tiers("parti.tsv") == {
        "a barn": 1,
        "four umbrellas": 2,
        "a sailor who teaches an owl to read a map": 3,
        'a sign that says "open"': 3,
        "a hill": 1,
    }


def test_geneval_tiers_are_its_tags() -> None:
    assert list(tiers("geneval.jsonl").values()) == [1, 2, 2, 3]


def test_compbench_is_a_folder_and_its_tiers_are_its_categories() -> None:
    found = tiers("compbench")
    assert list(found.values()) == [2, 2, 2, 3]
    assert "not a prompt file of the set" not in found
    assert len(read_entries(SETS / "compbench" / "color_train.txt", "t2i_compbench")) == 2


def test_a_format_can_be_named_where_the_ending_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes((SETS / "parti.tsv").read_bytes())
    assert len(read_entries(path, "parti")) == 5


def drawn_from(name: str, split: Any) -> list[str]:
    return [p.text for p in load_prompts(PromptsSection(source=str(SETS / name)), split=split, count=4, seed=0)]


def test_only_the_tiers_asked_for_are_drawn() -> None:
    section = PromptsSection(source=str(SETS / "parti.tsv"), tiers=(3,))
    drawn = {prompt.text for prompt in load_prompts(section, split="train", count=4, seed=0)}
    assert drawn <= {text for text, tier in tiers("parti.tsv").items() if tier == 3}
    without = PromptsSection(source=str(SETS / "drawbench.csv"), tiers=(2,))
    splits = [
        split for split in ("train", "validation", "test") if "fox" not in str(drawn_from("drawbench.csv", split))
    ]
    with pytest.raises(PromptError, match=r"has no prompt of the tiers \[2\].*change prompts\.tiers"):
        load_prompts(without, split=splits[0], count=1, seed=0)


@pytest.mark.parametrize(
    ("name", "content", "form", "says"),
    [
        ("a.json", '{"images": []}', "auto", r"prompts\.format=coco: it has no list `annotations`"),
        ("a.json", '{"annotations": [{"image_id": 1}]}', "auto", "annotation 1 has no text `caption`"),
        ("a.json", "[1, 2]", "auto", "is no JSON object"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt"', "auto", "Line 2 of .* is not JSON"),
        ("a.jsonl", '{"tag": "counting"}', "auto", "line 1 has no text `prompt`"),
        ("a.csv", "Text,Category\na,b", "auto", "no column Prompts"),
        ("a.tsv", "Prompt,Challenge\na,b", "auto", "no column Prompt and Challenge"),
        ("a.tsv", "Prompt\tCategory\tChallenge\na cat", "auto", "row 2 has too few columns"),
        ("a.txt", "a cat", "t2i_compbench", "no file named <category>_train.txt"),
    ],
)
def test_what_is_not_of_the_form_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: str, form: Any, says: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PromptError, match=says) as caught:
        read_entries(tmp_path / name, form)
    assert str(tmp_path / name) in caught.value.message
