"""Encoded prompts, each computed once and independent of what else is asked."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from addiffusion.backbones.base import PromptEmbedding

TEXT_BATCH = 8
"""Prompts per pass of the text encoder, always: an embedding must not depend on how many were asked for."""
CACHE_BYTES = 256 * 2**20
"""Most memory of kept embeddings: 236 kB each for SD 1.5, 5 MB for SD3."""

_log = logging.getLogger(__name__)


class PromptCache:
    """Encodes in full batches and keeps the most recently used embeddings."""

    def __init__(self, encode: Callable[[list[str]], list[PromptEmbedding]]) -> None:
        """``encode`` takes exactly TEXT_BATCH prompts."""
        self._encode = encode
        self._embeddings: OrderedDict[str, PromptEmbedding] = OrderedDict()
        self._bytes = 0

    def __call__(self, prompts: Sequence[str]) -> tuple[PromptEmbedding, ...]:
        """Embeddings in the order of ``prompts``."""
        known = {text: self._embeddings[text] for text in prompts if text in self._embeddings}
        missing = list(dict.fromkeys(text for text in prompts if text not in known))
        for start in range(0, len(missing), TEXT_BATCH):
            batch = missing[start : start + TEXT_BATCH]
            encoded = self._encode(batch + [""] * (TEXT_BATCH - len(batch)))
            known.update(zip(batch, encoded, strict=False))
        self._remember({text: known[text] for text in prompts})
        return tuple(known[text] for text in prompts)

    def _remember(self, used: dict[str, PromptEmbedding]) -> None:
        for text, embedding in used.items():
            if text not in self._embeddings:
                self._bytes += _bytes_of(embedding)
            self._embeddings[text] = embedding
            self._embeddings.move_to_end(text)
        while self._bytes > CACHE_BYTES and self._embeddings:
            self._bytes -= _bytes_of(self._embeddings.popitem(last=False)[1])


def words_of(tokenizer: Any, prompts: Sequence[str], length: int) -> Bool[Tensor, "prompt token"]:
    """Tokens that are words of each prompt: neither special nor padding. Logs what does not fit into ``length``."""
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    for prompt in prompts:
        count = len(tokenizer(prompt, verbose=False).input_ids)
        if count > length:
            _log.warning(
                "the text encoder reads %d of the %d tokens of the prompt %r: its end has no effect.",
                length,
                count,
                prompt,
            )
    special = torch.isin(tokens.input_ids, torch.tensor(tokenizer.all_special_ids))
    return tokens.attention_mask.bool() & ~special


def _bytes_of(embedding: PromptEmbedding) -> int:
    return embedding.hidden.nbytes + (0 if embedding.pooled is None else embedding.pooled.nbytes)
