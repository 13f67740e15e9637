"""The one reader of YAML: what it takes, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from addiffusion.configuration.files import load_config, load_resolved
from addiffusion.configuration.yaml import read_yaml
from addiffusion.errors import ConfigError
from launch.comparing.ablate import load_ablation
from launch.doctor.cluster_file import load_cluster_file
from launch.tuning.study import load_study

TWICE = "reward: {c_nfe: 0.02}\nppo:\n  lr: 1.0e-4\n  epochs: 2\n  lr: 2.0e-4\n"
LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
)


def read(tmp_path: Path, content: str | bytes) -> object:
    file = tmp_path / "file.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(file)


@pytest.mark.parametrize(
    ("content", "tree"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("dir: 2026-01-01", {"dir": "2026-01-01"}),  # a date is the text that somebody has written
        ("at: 2026-99-99 12:00:00", {"at": "2026-99-99 12:00:00"}),
        (f"a: {'1' * 5000}", {"a": "1" * 5000}),
        ("1: a\nnull: b\ntrue: c\n2026-01-01: d", {"1": "a", "null": "b", "true": "c", "2026-01-01": "d"}),
        ("base: &base {x: 1, y: 2}\nmore: {<<: *base, y: 3}", {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}}),
        ("x: &x [1]\ny: *x", {"x": [1], "y": [1]}),
        ("a: !!int nothing", {"a": "nothing"}),
    ],
)
def test_what_people_write_is_read(tmp_path: Path, content: str, tree: object) -> None:
    assert read(tmp_path, content) == tree


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TWICE, ["'lr' is given twice, in lines 3 and 5"]),
        ("ppo: 1\nppo: 2", ["'ppo' is given twice, in lines 1 and 2"]),
        ("a: [{b: {c: 1, c: 1}}]", ["'c' is given twice, in line 1"]),
        ("1: a\n'1': b", ["'1' is given twice, in lines 1 and 2"]),
        ("a: {b: !!binary aGk=}", ["a.b can't be b'hi'"]),
        ("a: !!set {b}", ["a can't be {'b'}"]),
        ("ppo: &p {lr: *p}", ["ppo.lr.lr", "holds itself"]),
        ("&a [*a]", ["holds itself"]),
        ("[" * 3000, ["not valid YAML", "nested too deep"]),
        ("a: " + "[" * 60 + "]" * 60, ["nested more than 40 deep"]),
        (LAUGHS, [" holds more than 100000 values"]),
        ('run: {dir: "\\ud800"}', ["run.dir can't be '\\ud800'"]),
        ('"\\ud800": 1', ["has the key '\\ud800'"]),
        (f"a: 0x{'f' * 5000}", ["a can't be a number of about 6020 digits"]),
        ("? [a]\n: 1", ["not valid YAML"]),
        ("a: !!python/object:os.system x", ["not valid YAML"]),
        (b"\xff\xfe\x00", ["can't be read: it is not UTF-8"]),
        ("a: " + "x" * 1_000_000, ["larger than 1000000 bytes"]),
        ("- " * 300 + "x" * 5000, ["file.yaml"]),
    ],
)
def test_what_no_configuration_holds_is_refused_with_its_key(
    tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, content)
    message = caught.value.message
    assert [word for word in [*words, "file.yaml"] if word not in message] == []
    assert message.isprintable()
    assert message.endswith(".")
    assert len(message) < 400 + len(str(tmp_path))


def test_an_unknown_key_of_a_study_is_compared_with_a_studys_keys(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("trails: 3\nobjective: {scor: clip}\nspace: {ppo.lr: [1.0e-3]}\n")
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    assert "unknown key trails, did you mean trials? (top-level keys: objective, trials, base, space)" in str(
        caught.value
    )
    assert "unknown key objective.scor, did you mean objective.score? (keys of objective: score, c_nfe)" in str(
        caught.value
    )


@pytest.mark.parametrize("reader", [load_resolved, load_study, load_cluster_file, lambda file: load_config([file])])
def test_no_file_may_give_a_key_twice(tmp_path: Path, reader: object) -> None:
    assert callable(reader)
    file = tmp_path / "twice.yaml"
    file.write_text(TWICE)
    with pytest.raises(Exception, match=r"twice\.yaml: 'lr' is given twice, in lines 3 and 5"):
        reader(file)
    with pytest.raises(ConfigError, match="'lr' is given twice"):
        load_ablation(str(file))
