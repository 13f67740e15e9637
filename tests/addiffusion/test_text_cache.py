from __future__ import annotations

import pickle
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from addiffusion.text_cache import TextCache, one_by_one


class Encoder:
    """Counts the characters of prompts, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, prompts: Sequence[str]) -> list[int]:
        self.asked.append(list(prompts))
        return [len(prompt) for prompt in prompts]


def test_each_prompt_is_encoded_once_and_all_new_ones_in_one_call() -> None:
    encoder = Encoder()
    cache = TextCache(encoder)
    assert cache.rows(["a", "bb", "a"]) == [1, 2, 1]
    assert cache.rows(["ccc", "bb"]) == [3, 2]
    assert cache.rows([]) == []
    assert encoder.asked == [["a", "bb"], ["ccc"]]


def test_the_least_recently_used_is_forgotten_first() -> None:
    encoder = Encoder()
    cache = TextCache(encoder, capacity=2)
    for prompts in (["a", "bb"], ["a"], ["ccc"], ["a"], ["bb"]):
        cache.rows(prompts)
    assert encoder.asked == [["a", "bb"], ["ccc"], ["bb"]]


@given(st.lists(st.lists(st.text("ab", max_size=4), max_size=6), max_size=8), st.integers(0, 6))
def test_rows_are_right_and_the_kept_ones_fit(calls: list[list[str]], capacity: int) -> None:
    """Also those of a call that is greater than the cache."""
    cache = TextCache(one_by_one(len), capacity=capacity, size=lambda row: row)
    for prompts in calls:
        assert cache.rows(prompts) == [len(prompt) for prompt in prompts]
        assert sum(cache._rows.values()) == cache._total <= capacity


def test_it_travels_with_what_it_knows() -> None:
    cache = pickle.loads(pickle.dumps(cache_of_two()))
    assert cache.rows(["a", "bb"]) == [1, 2]
    assert cache._encode.asked == [["a", "bb"]]


def cache_of_two() -> TextCache[int]:
    cache = TextCache(Encoder())
    cache.rows(["a", "bb"])
    return cache
