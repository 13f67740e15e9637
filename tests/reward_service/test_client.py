"""Which replica a call goes to, and what a client remembers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from addiffusion.config import ScorersSection
from addiffusion.errors import ClusterError, RolloutError, ScorerError
from addiffusion.records import SCORE_NAMES, ScoreReply, ScoreRequest
from reward_service.client import RemoteScoring, ServiceFacts, least_loaded, service_gone
from reward_service.stats import ServiceStats
from tests.reward_service.toy_scoring import CLIP_WIDTH, DINO_WIDTH, ToyScoring, make_request


class LocalReplicas:
    """Replicas in this process whose loads a test sets by hand."""

    def __init__(self, loads: Sequence[int | None]) -> None:
        self.known_loads = list(loads)
        self.asked: list[int] = []
        self.embedded: list[tuple[str, ...]] = []
        self.probes = 0

    def loads(self) -> Sequence[int | None]:
        self.probes += 1
        return self.known_loads

    def score(self, index: int, request: ScoreRequest) -> ScoreReply:
        self.asked.append(index)
        return ToyScoring().score(request)

    def embed_text(self, index: int, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.append(tuple(prompts))
        return ToyScoring().embed_text(prompts)

    def stats(self) -> Sequence[ServiceStats]:
        return [ServiceStats()] * len(self.known_loads)


def client(replicas: LocalReplicas) -> RemoteScoring:
    section = ScorersSection(replicas=len(replicas.known_loads))
    facts = ServiceFacts(section=section, names=SCORE_NAMES, clip_width=CLIP_WIDTH, dino_width=DINO_WIDTH, pid=0)
    return RemoteScoring(replicas, facts)


@given(st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 1000))
def test_the_least_loaded_answers_and_the_silent_only_in_need(loads: list[int | None], first: int) -> None:
    chosen = least_loaded(loads, first=first)
    known = [load for load in loads if load is not None]
    assert loads[chosen] == (min(known) if known else None)


def test_equals_take_turns() -> None:
    replicas = LocalReplicas([0, 0, 0])
    scoring = client(replicas)
    for seed in range(6):
        scoring.score(make_request(seed, 1))
    assert sorted(replicas.asked) == [0, 0, 1, 1, 2, 2]


def test_a_busy_replica_is_left_alone() -> None:
    replicas = LocalReplicas([7, 2, None])
    scoring = client(replicas)
    for seed in range(3):
        scoring.score(make_request(seed, 1))
    assert replicas.asked == [1, 1, 1]


def test_a_single_replica_is_never_probed() -> None:
    replicas = LocalReplicas([3])
    client(replicas).score(make_request(0, 1))
    assert (replicas.asked, replicas.probes) == ([0], 0)


def test_texts_are_asked_for_once() -> None:
    replicas = LocalReplicas([0])
    scoring = client(replicas)
    first = scoring.embed_text(("a", "b", "a"))
    np.testing.assert_array_equal(first, ToyScoring().embed_text(("a", "b", "a")))
    np.testing.assert_array_equal(scoring.embed_text(("b", "c")), ToyScoring().embed_text(("b", "c")))
    assert replicas.embedded == [("a", "b"), ("c",)]
    assert scoring.embed_text(()).shape == (0, CLIP_WIDTH)


def test_a_service_of_other_settings_is_refused_by_their_keys() -> None:
    section = ScorersSection()
    facts = ServiceFacts(section=section, names=SCORE_NAMES, clip_width=CLIP_WIDTH, dino_width=DINO_WIDTH, pid=0)
    facts.require(section, namespace="runs", name="mine")
    other = section.model_copy(update={"replicas": 3, "cache_images": 7})
    with pytest.raises(
        ClusterError, match=r"'mine' with other .*scorers\.replicas.* runs in namespace 'runs'"
    ) as raised:
        facts.require(other, namespace="runs", name="mine")
    assert "scorers.cache_images" in raised.value.message


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (
            "Traceback\n  line\naddiffusion.errors.RolloutError: it lost its device.\n",
            RolloutError,
            "it lost its device.",
        ),
        ("addiffusion.errors.WeightsError: none there.", ScorerError, "Ray could not bring it back"),
        ("The actor died: its node is gone.", ScorerError, "Ray could not bring it back"),
    ],
)
def test_a_process_that_refused_to_start_again_ends_the_run_by_its_own_words(
    words: str, kind: type[Exception], message: str
) -> None:
    error = service_gone(RuntimeError(words))
    assert type(error) is kind
    assert message in error.message
