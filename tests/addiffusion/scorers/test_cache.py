"""The cache is invisible but for the work it saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.records import ScoreRequest
from addiffusion.scorers.cache import CachedScoring
from tests.fakes import UNSCORABLE, ToyScoring

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
PROMPTS = ("a cat", "a dog", f"an {UNSCORABLE} one")
PICKS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=8)


def request_for(picks: list[tuple[int, int]], names: tuple[str, ...] = ("clip", "aesthetic")) -> ScoreRequest:
    images = np.stack([IMAGES[image] for image, _ in picks])
    return ScoreRequest(images=images, prompts=tuple(PROMPTS[prompt] for _, prompt in picks), names=names)


@settings(max_examples=60, deadline=None)
@given(requests=st.lists(PICKS, min_size=1, max_size=5), capacity=st.integers(0, 6))
def test_replies_are_those_of_the_scorers_behind(requests: list[list[tuple[int, int]]], capacity: int) -> None:
    cached = CachedScoring(ToyScoring(), capacity=capacity)
    for picks in requests:
        reply, direct = cached.score(request_for(picks)), ToyScoring().score(request_for(picks))
        np.testing.assert_array_equal(reply.values, direct.values)
        np.testing.assert_array_equal(reply.clip_embedding, direct.clip_embedding)
        np.testing.assert_array_equal(reply.dino_embedding, direct.dino_embedding)
        assert reply.errors == direct.errors


def scored_counts(cached: CachedScoring, toy: ToyScoring, *requests: ScoreRequest) -> list[int]:
    for request in requests:
        cached.score(request)
    return [len(request.images) for request in toy.requests]


def test_equal_images_of_a_request_are_scored_once_and_known_ones_never() -> None:
    toy = ToyScoring()
    cached = CachedScoring(toy, capacity=8)
    first = request_for([(0, 0), (1, 0), (0, 0), (0, 1)])
    assert scored_counts(cached, toy, first, first, request_for([(2, 0), (1, 0)])) == [3, 1]
    assert cached.usage().cache_hit_count == 1 + 4 + 1


def test_another_prompt_or_column_is_another_score() -> None:
    toy = ToyScoring()
    request = request_for([(0, 0)])
    others = (request_for([(0, 1)]), request_for([(0, 0)], ("clip",)), replace(request, embeddings=("clip",)))
    assert scored_counts(CachedScoring(toy, capacity=8), toy, request, *others) == [1, 1, 1, 1]


def test_what_failed_is_tried_again_and_the_oldest_is_forgotten() -> None:
    toy = ToyScoring()
    failing = request_for([(0, 2)])
    assert scored_counts(CachedScoring(toy, capacity=8), toy, failing, failing) == [1, 1]
    toy = ToyScoring()
    rows = [request_for([(image, 0)]) for image in (0, 1, 0, 2, 1, 0)]
    assert scored_counts(CachedScoring(toy, capacity=2), toy, *rows) == [1, 1, 1, 1, 1]
