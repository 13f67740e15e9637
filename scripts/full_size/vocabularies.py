"""Vocabularies of the published sizes: CLIP's own, which open_clip brings, and stand-ins for those of T5 and BERT."""

from __future__ import annotations

import gzip
import json
import string
from collections.abc import Mapping
from functools import cache
from typing import Final

from open_clip.tokenizer import bytes_to_unicode, default_bpe

CLIP_WORDS: Final = 49408
T5_WORDS: Final = 32100
BERT_WORDS: Final = 30522
_CLIP_END: Final = "<|endoftext|>"
_BERT_SPECIAL: Final = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}


@cache
def clip_tokenizer(*, pad: str = _CLIP_END) -> Mapping[str, str]:
    """Content of each file in the tokenizer's folder of CLIP; SDXL's second one pads with ``!``."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : CLIP_WORDS - 256 - 2 - 256 + 1]
    letters = list(bytes_to_unicode().values())
    pairs = ["".join(merge.split()) for merge in merges]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *pairs, "<|startoftext|>", _CLIP_END]
    special = {"bos_token": "<|startoftext|>", "eos_token": _CLIP_END, "unk_token": _CLIP_END, "pad_token": pad}
    config = special | {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    return {
        "vocab.json": json.dumps({word: index for index, word in enumerate(words)}),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }


@cache
def t5_tokenizer() -> Mapping[str, str]:
    """A Unigram model of T5's size that reads letter by letter; the published one also has a ``spiece.model``."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_letters + string.digits + string.punctuation]
    extra = [f"<extra_id_{number}>" for number in range(99, -1, -1)]
    pieces += [(f"\u2581{number}", -9.0) for number in range(10_000, 10_000 + T5_WORDS - len(pieces) - len(extra))]
    pieces += [(word, 0.0) for word in extra]
    special = ["<pad>", "</s>", "<unk>", *extra]
    places = {word: index for index, (word, _) in enumerate(pieces)}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(places[word], word) for word in special],
        "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, end, {"Sequence": {"id": "B", "type_id": 0}}, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
    }
    config = {
        "additional_special_tokens": extra,
        "eos_token": "</s>",
        "extra_ids": 100,
        "model_max_length": 512,
        "pad_token": "<pad>",
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    return {
        "tokenizer.json": json.dumps(tree),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "special_tokens_map.json": json.dumps({key: config[key] for key in ("eos_token", "pad_token", "unk_token")}),
    }


def bert_vocabulary() -> str:
    """``vocab.txt`` of BERT's size and special tokens that knows letters and their continuations."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = [*letters, *(f"##{letter}" for letter in letters)]
    found = [_BERT_SPECIAL.get(index, f"[unused{index}]") for index in range(max(_BERT_SPECIAL) + 1)] + words
    return "\n".join([*found, *(f"word{index}" for index in range(len(found), BERT_WORDS))]) + "\n"


def _added(index: int, word: str) -> dict[str, object]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": word, **flags}
