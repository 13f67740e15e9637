from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.ppo_learner import minibatch_rows


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 128))
def test_every_epoch_has_each_row_once_in_even_minibatches(rows: int, epochs: int, size: int) -> None:
    minibatches = list(
        minibatch_rows(rows, epochs=epochs, minibatch_size=size, generator=torch.Generator().manual_seed(0))
    )
    steps = len(minibatches) // epochs
    assert steps * epochs == len(minibatches)
    for epoch in range(epochs):
        parts = minibatches[epoch * steps : (epoch + 1) * steps]
        assert sorted(torch.cat(parts).tolist()) == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_differ_in_order_and_the_generator_decides_it() -> None:
    def order(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [rows.tolist() for rows in minibatch_rows(50, epochs=2, minibatch_size=50, generator=generator)]

    first, second = order(1)
    assert first != second
    assert order(1) == [first, second]
    assert order(2) != [first, second]
