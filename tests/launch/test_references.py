"""References on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from addiffusion.errors import RunFolderError
from addiffusion.records import Reference
from launch.references import load_references, save_references, training_pairs
from tests.fakes import make_prompt

PAIRS = training_pairs([make_prompt(number) for number in range(3)], seed=5)
REFERENCES = [
    Reference(scores=np.full(3, number, np.float32), dino_embedding=np.arange(4, dtype=np.float32) + number)
    for number in range(3)
]


def test_each_pair_has_a_seed_of_its_own() -> None:
    assert len({seed for _, seed in PAIRS}) == 3
    assert [seed for _, seed in PAIRS] != [seed for _, seed in training_pairs([p for p, _ in PAIRS], seed=6)]


def test_references_come_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "references.npz"
    save_references(path, PAIRS, REFERENCES)
    assert [file.name for file in tmp_path.iterdir()] == ["references.npz"]
    for found, expected in zip(load_references(path, PAIRS), REFERENCES, strict=True):
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.dino_embedding, expected.dino_embedding)


def test_references_of_other_prompts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "references.npz"
    save_references(path, PAIRS, REFERENCES)
    with pytest.raises(RunFolderError, match="belong to other prompts"):
        load_references(path, PAIRS[:2])
    with pytest.raises(RunFolderError, match="belong to other prompts"):
        load_references(path, [(prompt, seed + 1) for prompt, seed in PAIRS])


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "references.npz"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="can't be read"):
        load_references(path, PAIRS)
