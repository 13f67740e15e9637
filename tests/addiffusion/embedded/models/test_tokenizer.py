"""The embedded tokenizer: one id per word of the grammar, in the exact form of a CLIPTokenizer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from addiffusion.assets import weights_path
from addiffusion.embedded.making.part import TrainingContext
from addiffusion.embedded.making.tokenizer_training import TokenizerPart
from addiffusion.embedded.models.tokenizer import CONTEXT_LENGTH, build_tokenizer, encode, load_tokenizer
from addiffusion.embedded.world.captions import vocabulary, write_caption
from addiffusion.embedded.world.scenes import sample_scene
from addiffusion.errors import WeightsError


@pytest.fixture(scope="module", params=["built", "shipped"])
def tokenizer(request: pytest.FixtureRequest) -> CLIPTokenizer:
    return build_tokenizer(vocabulary()) if request.param == "built" else load_tokenizer(weights_path("pipeline"))


def test_every_word_is_one_token_of_its_own(tokenizer: CLIPTokenizer) -> None:
    middle = [tokenizer(word).input_ids[1:-1] for word in vocabulary()]
    assert all(len(ids) == 1 for ids in middle)
    assert len({ids[0] for ids in middle}) == len(vocabulary())


def test_start_and_end_are_the_largest_ids(tokenizer: CLIPTokenizer) -> None:
    size = len(tokenizer)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (size - 2, size - 1)
    assert tokenizer.pad_token_id == size - 1


def test_captions_of_every_tier_fit_word_by_word(tokenizer: CLIPTokenizer) -> None:
    rng = random.Random(5)
    captions = [write_caption(sample_scene(rng, tier), rng, "full") for tier in (1, 2, 3) for _ in range(60)]
    lengths = [len(tokenizer(caption).input_ids) for caption in captions]
    assert lengths == [len(caption.split()) + 2 for caption in captions]
    assert max(lengths) <= CONTEXT_LENGTH


def test_encode_pads_with_the_end_token_and_cuts_long_texts(tokenizer: CLIPTokenizer) -> None:
    ids = encode(tokenizer, ["a red circle", "red " * 40])
    assert ids.shape == (2, CONTEXT_LENGTH)
    assert torch.all(ids[0, 4:] == tokenizer.eos_token_id)
    assert ids[1, -1] == tokenizer.eos_token_id


def test_an_unknown_word_is_spelled_in_pieces(tokenizer: CLIPTokenizer) -> None:
    assert len(tokenizer("unicorn").input_ids) > 3


def test_ids_depend_on_the_set_of_words_alone() -> None:
    words = list(vocabulary())
    assert build_tokenizer(words).get_vocab() == build_tokenizer([*reversed(words), words[0]]).get_vocab()


def test_the_part_writes_a_tokenizer_and_keeps_it(tmp_path: Path) -> None:
    context = TrainingContext(out=tmp_path, work=tmp_path / "work", seed=0, device=torch.device("cpu"))
    first = TokenizerPart().train(context)
    written = (tmp_path / "pipeline" / "tokenizer" / "tokenizer.json").read_bytes()
    second = TokenizerPart().train(context)
    assert first.metrics == second.metrics
    assert (tmp_path / "pipeline" / "tokenizer" / "tokenizer.json").read_bytes() == written
    assert load_tokenizer(tmp_path / "pipeline").get_vocab() == build_tokenizer(vocabulary()).get_vocab()


def test_the_part_refuses_a_tokenizer_that_lacks_words(tmp_path: Path) -> None:
    build_tokenizer(["red", "circle"]).save_pretrained(str(tmp_path / "pipeline" / "tokenizer"))
    context = TrainingContext(out=tmp_path, work=tmp_path / "work", seed=0, device=torch.device("cpu"))
    with pytest.raises(WeightsError, match="does not know"):
        TokenizerPart().train(context)
