"""What a scorer has computed of a prompt, remembered: each prompt is encoded once per model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import torch
from jaxtyping import Shaped
from torch import Tensor

from addiffusion.cancellation import committing

_CACHED_PROMPTS: Final = 4096


class TextCache:
    """Rows by prompt, the least recently used forgotten first.

    Prompts are encoded one at a time, so that a text's row does not depend on the company it came in.
    """

    def __init__(self, encode: Callable[[str], Tensor], capacity: int = _CACHED_PROMPTS) -> None:
        self._encode = encode
        self._capacity = capacity
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def rows(self, prompts: Sequence[str]) -> Shaped[Tensor, "n ..."]:
        """One row per prompt, in their order."""
        return torch.stack([self._row(prompt) for prompt in prompts])

    def _row(self, prompt: str) -> Tensor:
        row = self._known[prompt] if prompt in self._known else self._encode(prompt)
        with committing():
            self._known[prompt] = row
            self._known.move_to_end(prompt)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return row
