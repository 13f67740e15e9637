"""Encoded prompts, each computed once and independent of what else is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from addiffusion.backbones.base import PromptEmbedding
from addiffusion.backbones.part_files import WHOLE
from addiffusion.errors import WeightsError
from addiffusion.text_cache import TextCache

TEXT_BATCH = 8
"""Prompts per pass of the text encoder, always: an embedding must not depend on how many were asked for."""
_SHOWN_CHARACTERS = 60
"""Of a prompt in a warning."""
_TOLD = 4096
"""Prompts that are remembered as told: a process may see prompts without end."""
CACHE_BYTES = 256 * 2**20
"""Most memory of kept embeddings: 236 kB each for SD 1.5, 5 MB for SD3."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How much of a prompt one text encoder reads."""

    name: str
    """Of the encoder, as in the pipeline."""
    tokenizer: Any
    length: int
    """Most tokens it reads, special ones included."""

    def count(self, prompt: str) -> int:
        """Tokens of a prompt, special ones included."""
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def check(self, encoder: Any) -> None:
        """Hold the tokenizer against the options of the encoder that it is for.

        Raises:
            WeightsError: it has more words than the encoder knows, or cuts later than the encoder can read.
        """
        places = getattr(encoder, "max_position_embeddings", None)
        if places is not None and self.length > places:
            raise WeightsError(
                f"The tokenizer of {self.name} cuts at {self.length} tokens, and the encoder reads {places}: its "
                f"tokenizer_config.json is missing or another model's; {WHOLE}.",
                part=self.name,
            )
        words = len(self.tokenizer)
        if words > encoder.vocab_size:
            raise WeightsError(
                f"The tokenizer of {self.name} has {words} words, and the encoder knows {encoder.vocab_size}: it is "
                f"another model's; {WHOLE}.",
                part=self.name,
            )


class PromptCache:
    """Encodes in full batches and keeps the most recently used embeddings. Says of each prompt once what is cut off."""

    def __init__(
        self, encode: Callable[[list[str]], list[PromptEmbedding]], readers: Callable[[], Sequence[Reader]]
    ) -> None:
        """``encode`` takes exactly TEXT_BATCH prompts, which ``readers`` read."""
        self._encode = encode
        self._readers = readers
        self._told: set[str] = set()
        self.cache = TextCache(self._encoded, capacity=CACHE_BYTES, size=_bytes_of)

    def __call__(self, prompts: Sequence[str]) -> tuple[PromptEmbedding, ...]:
        """Embeddings in the order of ``prompts``."""
        return tuple(self.cache.rows(prompts))

    def _encoded(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        embeddings: list[PromptEmbedding] = []
        for start in range(0, len(prompts), TEXT_BATCH):
            batch = list(prompts[start : start + TEXT_BATCH])
            self._tell_cuts(batch)
            embeddings += self._encode(batch + [""] * (TEXT_BATCH - len(batch)))[: len(batch)]
        return embeddings

    def _tell_cuts(self, prompts: Sequence[str]) -> None:
        readers = self._readers()
        for prompt in filter(lambda text: text not in self._told, prompts):
            counts = [(reader, reader.count(prompt)) for reader in readers]
            if all(count <= reader.length for reader, count in counts):
                continue
            if len(self._told) >= _TOLD:
                self._told.clear()
            self._told.add(prompt)
            parts = [f"{reader.name} reads {min(count, reader.length)} of {count} tokens" for reader, count in counts]
            _log.warning(
                "the prompt %r is too long: %s; its end has no effect where it is cut.",
                prompt if len(prompt) <= _SHOWN_CHARACTERS else f"{prompt[:_SHOWN_CHARACTERS]}...",
                ", ".join(parts),
            )


def words_of(tokenizer: Any, prompts: Sequence[str], length: int) -> Bool[Tensor, "prompt token"]:
    """Tokens that are words of each prompt: neither special nor padding."""
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    special = torch.isin(tokens.input_ids, torch.tensor(tokenizer.all_special_ids))
    return tokens.attention_mask.bool() & ~special


def _bytes_of(embedding: PromptEmbedding) -> int:
    return embedding.hidden.nbytes + (0 if embedding.pooled is None else embedding.pooled.nbytes)
