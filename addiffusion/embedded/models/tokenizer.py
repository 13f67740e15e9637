"""The word-level vocabulary of the embedded world as a true ``CLIPTokenizer``."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CLIPTokenizer

from addiffusion.errors import WeightsError

CONTEXT_LENGTH: Final = 24
"""Tokens per prompt, start and end included."""
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"

_ALPHABET: Final = string.ascii_lowercase + ",.-" + string.digits
WORD_END: Final = "</w>"
"""Ends the last piece of every word in the vocabulary."""


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer that gives each of ``words`` one id and spells any other word in pieces.

    Start and end token take the two largest ids: CLIPTextModel and open_clip both pool at the largest id.
    """
    ids, merges = _learn_merges(sorted(set(words)))
    pairs: Any = merges  # the stub says list of str, the code wants pairs
    return CLIPTokenizer(
        vocab=ids,
        merges=pairs,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=CONTEXT_LENGTH,
    )


def encode(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Int[Tensor, "text length"]:
    """Token ids at the fixed length, cut or padded with the end token."""
    found: Any = tokenizer(list(texts), padding="max_length", max_length=CONTEXT_LENGTH, truncation=True)
    return torch.tensor(found["input_ids"], dtype=torch.long)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a pipeline folder.

    Raises:
        WeightsError: it is missing.
    """
    if not (folder / "tokenizer" / "tokenizer.json").exists():
        raise WeightsError(
            f"There is no tokenizer at {folder / 'tokenizer'}; train the part `tokenizer` first.",
            path=str(folder / "tokenizer"),
        )
    return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))  # pyright: ignore[reportUnknownMemberType]


def _learn_merges(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair merges carried on until every word is one piece (arXiv:1508.07909 Algorithm 1).

    Ties go to the alphabetically first pair, so the ids depend on the set of words alone.
    """
    pieces = [(*word[:-1], word[-1] + WORD_END) for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    letters = [letter + suffix for suffix in ("", WORD_END) for letter in _ALPHABET]
    vocabulary_order = dict.fromkeys([*letters, *("".join(pair) for pair in merges), START, END])
    return {piece: index for index, piece in enumerate(vocabulary_order)}, merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """``word`` with every occurrence of ``pair`` joined, left to right."""
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)
