"""References on disk, and how they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.config import Config, SamplerSection
from addiffusion.errors import RolloutError, RunFolderError
from addiffusion.records import FailedEpisode, Reference, Ticket
from addiffusion.rollouts import Collected, Rollouts, WorkerStatus
from launch.training.references import Pairs, References, ReferenceStore, draw_references, training_pairs
from tests.fakes import make_prompt
from tests.launch.runtime.toy_components import toy_components, toy_config

pytestmark = pytest.mark.usefixtures("figures_once")

PAIRS = training_pairs([make_prompt(number) for number in range(6)], seed=5)


def references_of(pairs: Pairs) -> References:
    return {
        (prompt.text, seed): Reference(
            scores=np.full(3, prompt.prompt_id, np.float32), dino_embedding=np.arange(4, dtype=np.float32) / 3
        )
        for prompt, seed in pairs
    }


def assert_same(found: References, expected: References) -> None:
    assert found.keys() == expected.keys()
    for key, reference in expected.items():
        np.testing.assert_array_equal(found[key].scores, reference.scores)
        np.testing.assert_array_equal(found[key].dino_embedding, reference.dino_embedding)


def save_as_earlier_versions_did(run: Path, references: References) -> None:
    np.savez(
        run / "references.npz",
        scores=np.stack([one.scores for one in references.values()]),
        dino=np.stack([one.dino_embedding for one in references.values()]),
        seeds=np.array([seed for _, seed in references], np.int64),
        prompts=np.array([text for text, _ in references]),
    )


def test_each_pair_has_a_seed_of_its_own() -> None:
    assert len({seed for _, seed in PAIRS}) == len(PAIRS)
    assert [seed for _, seed in PAIRS] != [seed for _, seed in training_pairs([p for p, _ in PAIRS], seed=6)]


def test_what_is_added_comes_back_unchanged(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, PAIRS)
    assert store.load() == {}
    store.add(references_of(PAIRS[:2]))
    store.add({})
    ReferenceStore(tmp_path, PAIRS).add(references_of(PAIRS[2:5]))  # another process goes on
    assert [part.name for part in sorted((tmp_path / "references").iterdir())] == ["000000.npz", "000001.npz"]
    assert_same(store.load(), references_of(PAIRS[:5]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04half of a"])
def test_a_part_that_was_being_written_when_the_run_was_killed_costs_itself_alone(
    tmp_path: Path, content: bytes
) -> None:
    store = ReferenceStore(tmp_path, PAIRS)
    store.add(references_of(PAIRS[:2]))
    (tmp_path / "references" / "000001.npz.partial").write_bytes(content)
    assert_same(store.load(), references_of(PAIRS[:2]))
    store.add(references_of(PAIRS[2:4]))
    assert_same(store.load(), references_of(PAIRS[:4]))


def test_the_single_file_of_earlier_versions_is_read(tmp_path: Path) -> None:
    save_as_earlier_versions_did(tmp_path, references_of(PAIRS))
    assert_same(ReferenceStore(tmp_path, PAIRS).load(), references_of(PAIRS))
    with pytest.raises(RunFolderError, match="belong to other prompts"):
        ReferenceStore(tmp_path, PAIRS[:2]).load()


def test_references_of_other_prompts_or_seeds_are_refused(tmp_path: Path) -> None:
    ReferenceStore(tmp_path, PAIRS).add(references_of(PAIRS[:2]))
    others = (PAIRS[:2], [*PAIRS, (make_prompt(9), 1)], [(prompt, seed + 1) for prompt, seed in PAIRS])
    for pairs in others:
        with pytest.raises(RunFolderError, match="belong to other prompts"):
            ReferenceStore(tmp_path, pairs).load()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
@pytest.mark.parametrize("name", ["references.npz", "references/000000.npz"])
def test_a_damaged_file_is_one_sentence_and_without_it_the_rest_is_read(
    tmp_path: Path, content: bytes, name: str
) -> None:
    store = ReferenceStore(tmp_path, PAIRS)
    store.add(references_of(PAIRS[:2]))
    store.add(references_of(PAIRS[2:4]))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"references .*{name} can't be read .*: delete that file") as caught:
        store.load()
    Path(caught.value.facts["path"]).unlink()
    assert references_of(PAIRS[2:4]).keys() <= store.load().keys()


class Flaky:
    """Rollouts whose tickets fail as often as ``failures`` says by number, and which count ``up`` workers."""

    def __init__(self, rollouts: Rollouts, failures: dict[int, int], up: Sequence[int] = (1,)) -> None:
        self._rollouts, self._left, self._up = rollouts, Counter(failures), list(up)
        self.calls: list[list[int]] = []

    def set_weights(self, weights: object, version: int) -> None:
        self._rollouts.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.calls.append([ticket.ticket_id for ticket in tickets])
        failing = [ticket for ticket in tickets if self._left[ticket.ticket_id] > 0]
        self._left.subtract([ticket.ticket_id for ticket in failing])
        drawn = self._rollouts.collect([ticket for ticket in tickets if ticket not in failing], sampler=sampler)
        return replace(drawn, failed=tuple(FailedEpisode(ticket=one, reason="a cosmic ray.") for one in failing))

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self._rollouts.advance(tickets)

    def worker_status(self) -> WorkerStatus:
        up = self._up.pop(0) if len(self._up) > 1 else self._up[0]
        return WorkerStatus(up_count=up, absent_count=0, lost_count=0, moved_count=0)


def drawn(rollouts: Rollouts, config: Config, into: References | None = None) -> References:
    found: References = {} if into is None else into
    for batch in draw_references(rollouts, PAIRS, config):
        found |= batch
    return found


@pytest.fixture(scope="module")
def toys() -> Iterator[Rollouts]:
    with toy_components(toy_config()) as components:
        yield components.rollouts


@pytest.fixture(scope="module")
def undisturbed(toys: Rollouts) -> References:
    return drawn(toys, toy_config())


@settings(max_examples=25, deadline=None)
@given(failures=st.dictionaries(st.integers(0, 5), st.integers(0, 3)), up=st.lists(st.integers(0, 3), min_size=1))
def test_failed_references_are_drawn_again(
    toys: Rollouts, undisturbed: References, failures: dict[int, int], up: list[int]
) -> None:
    rollouts = Flaky(toys, failures, up)
    assert_same(drawn(rollouts, toy_config()), undisturbed)
    handed_out = Counter(number for call in rollouts.calls for number in call)
    assert handed_out == {number: 1 + failures.get(number, 0) for number in range(len(PAIRS))}


def test_one_that_always_fails_ends_the_drawing_after_the_others_were_yielded(
    toys: Rollouts, undisturbed: References
) -> None:
    found: References = {}
    with pytest.raises(RolloutError, match=r"could not be drawn in 3 attempts: a cosmic ray\."):
        drawn(Flaky(toys, {1: 99}), toy_config(rollout={"max_reissues": 2}), into=found)
    lost = (PAIRS[1][0].text, PAIRS[1][1])
    assert found.keys() == undisturbed.keys() - {lost}


def test_each_batch_has_an_image_for_every_slot_that_is_up(toys: Rollouts) -> None:
    config = toy_config(rollout={"slots": 2, "workers": 7})
    rollouts = Flaky(toys, {}, up=[1, 2, 0])
    assert len(list(islice(draw_references(rollouts, PAIRS, config), 2))) == 2
    assert rollouts.calls == [[0, 1], [2, 3, 4, 5]]
    serial = list(draw_references(toys, PAIRS, config))  # the configured workers are not there
    assert [len(batch) for batch in serial] == [2, 2, 2]
