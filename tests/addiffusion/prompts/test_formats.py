"""Each set's published form, in small files of our own sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("a.json", '{"images": []}', "auto", r"prompts\.format=coco: it is no array and has no list `annotations`"),
        ("a.json", '{"annotations": [{"image_id": 1}]}', "auto", "annotation 1 has no text `caption`"),
        ("a.json", "[1, 2]", "auto", "annotation 1 has no text `caption`"),
        (
            "a.json",
            '[{"prompt": "a"}, {"id": 2}]',
            "auto",
            r"prompts\.format=imagereward: entry 2 has no text `prompt`",
        ),
        ("a.json", "[" * 100_000, "auto", "is not JSON"),
        ("a.json", "1" * 5_000, "auto", "is not JSON"),
        ("a.json", '{"prompt": "a"}', "imagereward", "it is no array"),
        (
            "a.jsonl",
            '{"prompt": "a cat"}\n{"prompt": "a \\ud83d car"}',
            "auto",
            r"`prompt` of line 2 has '\\ud83d' for ch",
        ),
        ("a.json", '[{"caption": "\\udc00"}]', "auto", r"`caption` of annotation 1 has '\\udc00' for character 1"),
        ("a.csv", 'Prompts\na cat\n"a dog\na fox\n', "auto", r"Line 3 .* is no row of a table \(unexpected end"),
        ("a.csv", 'Prompts\na cat\n"Hi" on a sign\n', "auto", r"Line 3 .* those inside it are doubled"),
        ("a.csv", f"Prompts\na cat\n{'x' * 200_000}\n", "auto", r"Line 3 .* at most 131072 characters"),
        ("a.tsv", f"Prompt\tChallenge\n{'x' * 200_000}\tBasic\n", "auto", r"Line 2 .* at most 131072 characters"),
        ("a.csv", "", "auto", "names no column Prompts"),
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


def texts(path: Path, content: str) -> list[str]:
    path.write_bytes(content.encode())
    return [entry.text for entry in read_entries(path, "auto")]


def test_a_tsv_has_no_quoting(tmp_path: Path) -> None:
    prompts = ['"Hi" on a sign', '"open', "a cat", 'a 6" pipe', "a dog"]
    rows = "".join(f"{prompt}\tsigns\tBasic\t\n" for prompt in prompts)
    assert texts(tmp_path / "a.tsv", "Prompt\tCategory\tChallenge\tNote\n" + rows) == prompts


def test_a_line_break_in_a_cell_is_a_space(tmp_path: Path) -> None:
    content = 'Prompts,Category\n"a red car\non a bridge",x\n"a ""quiet"" sea\r\n\r\n at night",x\n'
    assert texts(tmp_path / "a.csv", content) == ["a red car on a bridge", 'a "quiet" sea at night']


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("head", "between"), [("", ","), ("", ";"), ("", "\t"), ("sep=;{end}", ";"), ("sep=|{end}", "|")]
)
def test_spreadsheets_separate_as_they_like(tmp_path: Path, head: str, between: str, end: str) -> None:
    rows = [["Category", "Prompts"], ["Colors", "a teal barn"], ["Counting", '"two kites, one lamp"']]
    content = head.format(end=end) + end.join(between.join(row) for row in rows) + end
    assert texts(tmp_path / "a.csv", "\ufeff" + content) == ["a teal barn", "two kites, one lamp"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_their_system_ends_them(tmp_path: Path, end: str) -> None:
    assert texts(tmp_path / "a.txt", end.join(["a cat", "# none", "", "a dog"])) == ["a cat", "a dog"]
    lines = ['{"tag": "colors", "prompt": "a cat"}', '{"prompt": "a dog"}']
    assert texts(tmp_path / "a.jsonl", end.join(lines)) == ["a cat", "a dog"]


def test_an_array_of_prompts_is_imagereward_and_one_of_captions_is_coco(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text('[{"id": "000-1", "prompt": "a barn"}, {"id": "000-2", "prompt": "a barn, oil on canvas"}]')
    assert [(entry.text, entry.family) for entry in read_entries(path, "auto")] == [
        ("a barn", "a barn"), ("a barn, oil on canvas", "a barn, oil on canvas"),
    ]  # fmt: skip
    path.write_text('[{"image_id": 4, "caption": "a barn"}, {"image_id": 4, "caption": "a red barn"}]')
    assert [entry.family for entry in read_entries(path, "auto")] == ["image 4", "image 4"]
    section = PromptsSection(source=str(path), format="imagereward")
    with pytest.raises(PromptError, match="entry 1 has no text `prompt`"):
        load_prompts(section, split="train", count=1, seed=0)


@contextmanager
def catching() -> Iterator[list[PromptError]]:
    caught: list[PromptError] = []
    try:
        yield caught
    except PromptError as error:
        caught.append(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".txt", ".json", ".jsonl", ".csv", ".tsv"]), st.booleans())
def test_any_file_is_read_or_refused_with_its_name(content: bytes, ending: str, as_header: bool) -> None:
    head = {".csv": b"Prompts\n", ".tsv": b"Prompt\tChallenge\n"}.get(ending, b"") if as_header else b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts{ending}"
        path.write_bytes(head + content)
        with catching() as caught:
            entries = read_entries(path, "auto")
        if caught:
            assert str(path) in caught[0].message
            assert caught[0].message.endswith(".")
        else:
            assert all(entry.text.encode("utf-8") and entry.text == entry.text.strip(" \n\r") for entry in entries)
