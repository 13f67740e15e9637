"""The re-hosted ImageReward against values that the original package gave, and its checkpoint's exact keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import ImageRewardSection
from addiffusion.errors import WeightsError
from addiffusion.scorers.image_reward import (
    ImageRewardModel,
    ImageRewardScorer,
    ImageRewardShape,
    bert_tokenizer,
    load_image_reward,
    rehosted,
    rehosted_name,
)
from scripts.full_size.models import published_tensors
from scripts.full_size.vocabularies import bert_vocabulary
from tests.addiffusion.scorers.tiny_scorers import CPU, batch_of, pictures

TINY = ImageRewardShape(
    vision={"embed_dim": 32, "depth": 2, "num_heads": 2},
    text_width=24,
    text_layers=2,
    text_heads=2,
    text_intermediate=48,
    vocab_size=64,
    max_positions=40,
)
GOLDEN = [-1.9866451, -1.3954403]
"""Rewards that image-reward 1.5 itself gave for the deterministic weights and inputs below."""
GOLDEN_SWAPPED = [-1.4053615, -1.9950503]
"""The same with the two prompts exchanged."""
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle", "##s", "dog", ",")


def golden_checkpoint(model: ImageRewardModel) -> dict[str, Tensor]:
    """The weights the golden values were made with: a sine by position in the sorted list of names."""
    shapes = published_tensors(model)
    position_ids = "blip.text_encoder.embeddings.position_ids"
    checkpoint = {position_ids: shapes[position_ids]}
    for index, name in enumerate(sorted(shapes)):
        if name == position_ids:
            continue
        shape = shapes[name].shape
        count = int(torch.tensor(shape).prod())
        scale = 1.5 / max(1, shape[-1]) ** 0.5 if len(shape) > 1 else 0.3
        values = torch.sin(torch.arange(count, dtype=torch.float64) ** 1.5 + index) * scale
        if name.endswith("weight") and len(shape) == 1:
            values = 1 + values
        checkpoint[name] = values.reshape(shape).float()
    return checkpoint


@pytest.fixture(scope="module")
def model() -> ImageRewardModel:
    model = ImageRewardModel(TINY)
    model.load_state_dict(rehosted(golden_checkpoint(model)))
    return model.eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    pixels = torch.sin(0.001 * torch.arange(2 * 3 * 224 * 224, dtype=torch.float64)).reshape(2, 3, 224, 224).float()
    ids, mask = torch.zeros(2, 35, dtype=torch.long), torch.zeros(2, 35, dtype=torch.long)
    for row, length in enumerate((6, 11)):
        ids[row, :length] = torch.arange(length) * 5 % 63 + 1
        mask[row, :length] = 1
    return pixels, ids, mask


@torch.inference_mode()
def test_golden_values_of_the_original_package(model: ImageRewardModel, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    pixels, ids, mask = inputs
    torch.testing.assert_close(model(pixels, ids, mask), torch.tensor(GOLDEN), rtol=0, atol=1e-4)
    swapped = model(pixels, ids.flip(0), mask.flip(0))
    torch.testing.assert_close(swapped, torch.tensor(GOLDEN_SWAPPED), rtol=0, atol=1e-4)


def test_the_checkpoint_has_as_many_keys_as_the_published_one(model: ImageRewardModel) -> None:
    layers = 12 + 26  # of one vision and one text block
    assert len(golden_checkpoint(model)) == 625 - (24 - 2) * 12 - (12 - 2) * 26
    assert layers == 38
    assert rehosted_name("blip.visual_encoder.blocks.0.attn.qkv.weight") == "vision.blocks.0.attn.qkv.weight"
    assert rehosted_name("mlp.layers.7.bias") == "mlp.layers.7.bias"


def write_vocabulary(folder: Path) -> Path:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder / "vocab.txt"


def test_prompts_become_bert_tokens_between_cls_and_sep(tmp_path: Path) -> None:
    tokenizer = bert_tokenizer(write_vocabulary(tmp_path))
    encoded = tokenizer("A red circles, unicorn", padding="max_length", truncation=True, max_length=12)
    words = [WORDS[index] for index in encoded["input_ids"]]
    assert words == ["[CLS]", "a", "red", "circle", "##s", ",", "[UNK]", "[SEP]", *["[PAD]"] * 4]
    assert encoded["attention_mask"] == [1] * 8 + [0] * 4


def test_each_image_is_scored_for_its_own_prompt(model: ImageRewardModel, tmp_path: Path) -> None:
    scorer = ImageRewardScorer(model, bert_tokenizer(write_vocabulary(tmp_path)), CPU)
    images, prompts = pictures(64, 64), ("a red circle", "dog", "a dog, red")
    together = scorer.score(batch_of(images), prompts)
    for row in range(3):
        alone = scorer.score(batch_of(images[row : row + 1]), prompts[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)
    other = scorer.score(batch_of(images), prompts[::-1])
    assert float((other - together)[[0, 2]].abs().min()) > 1e-4, "the prompt must matter"


def test_missing_files_are_one_sentence(tmp_path: Path) -> None:
    def load() -> None:
        paths = ImageRewardSection(weights=str(tmp_path), tokenizer=str(tmp_path))
        load_image_reward(ScorersSection(kind="pretrained", image_reward=paths), CPU)

    with pytest.raises(
        WeightsError, match=r"scorers\.image_reward\.weights=.* does not give ImageReward\.pt.*1\.79 GB"
    ):
        load()
    torch.save({}, tmp_path / "ImageReward.pt")
    with pytest.raises(WeightsError, match=r"scorers\.image_reward\.tokenizer=.* does not give vocab\.txt"):
        load()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[PAD]\n[UNK]\n", r"it has \d words, and the model knows 30522"),
        (bert_vocabulary().encode()[:-2000], r"it has 30\d\d\d words, and the model knows 30522"),
        (b"\xff\xfe\x00", "codec can't decode"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused_before_the_model_is_built(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    torch.save({}, tmp_path / "ImageReward.pt")
    paths = ImageRewardSection(weights=str(tmp_path), tokenizer=str(tmp_path))
    with pytest.raises(WeightsError, match=rf"scorers\.image_reward\.tokenizer names, .*{words}.*: get it again"):
        load_image_reward(ScorersSection(kind="pretrained", image_reward=paths), CPU)
