"""Rows computed from prompts (embeddings, token ids), each prompt once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from addiffusion.cancellation import committing

Row = TypeVar("Row")


class TextCache(Generic[Row]):
    """Rows by prompt, the least recently used forgotten first. A call that is given up leaves it as it was."""

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Sequence[Row]],
        *,
        capacity: int = 4096,
        size: Callable[[Row], int] | None = None,
    ) -> None:
        """An empty cache.

        Args:
            encode: rows of different prompts, in their order.
            capacity: greatest sum of the sizes of all rows between two calls.
            size: of one row; None counts each as 1.
        """
        self._encode, self.capacity, self._size = encode, capacity, size
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self._total = 0

    def rows(self, prompts: Sequence[str]) -> list[Row]:
        """One row per prompt, in their order; those not known are encoded in one call."""
        known = {prompt: self._rows[prompt] for prompt in prompts if prompt in self._rows}
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        if missing:
            known.update(zip(missing, self._encode(missing), strict=True))
        with committing():
            self._keep({prompt: known[prompt] for prompt in prompts})
        return [known[prompt] for prompt in prompts]

    def _keep(self, used: dict[str, Row]) -> None:
        for prompt, row in used.items():
            if prompt not in self._rows:
                self._rows[prompt] = row
                self._total += self._size_of(row)
            self._rows.move_to_end(prompt)
        while self._total > self.capacity and self._rows:
            self._total -= self._size_of(self._rows.popitem(last=False)[1])

    def _size_of(self, row: Row) -> int:
        return 1 if self._size is None else self._size(row)


def one_by_one(encode: Callable[[str], Row]) -> Callable[[Sequence[str]], list[Row]]:
    """An encoder of several prompts that takes each alone: a row does not depend on the company it came in."""

    def encode_all(prompts: Sequence[str]) -> list[Row]:
        return [encode(prompt) for prompt in prompts]

    return encode_all
