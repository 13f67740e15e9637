"""The PickScore adapter against transformers' CLIPModel, whose logits it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import CLIPModel

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import PickScoreSection
from addiffusion.errors import WeightsError
from addiffusion.scorers.images import OPENAI_MEAN, OPENAI_STD
from addiffusion.scorers.pickscore import load_pickscore
from tests.addiffusion.scorers.tiny_scorers import (
    CPU,
    END,
    PROMPTS,
    batch_of,
    make_pickscore,
    pictures,
    randomised,
    through_pil,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pickscore")
    model: Any = randomised(make_pickscore())
    model.save_pretrained(folder)
    return folder


def test_scores_are_the_models_own_logits(folder: Path) -> None:
    images = pictures(48, 40)
    transform = Compose(
        [
            Resize(32, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(32),
            ToTensor(),
            Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )
    tokens = open_clip.SimpleTokenizer(context_length=77)([*PROMPTS])
    unpadded = [row[: int((row == END).nonzero()[0]) + 1] for row in tokens]
    ids = pad_sequence(unpadded, batch_first=True, padding_value=END)  # as CLIPProcessor pads
    mask = pad_sequence([torch.ones_like(row) for row in unpadded], batch_first=True)
    reference: Any = CLIPModel.from_pretrained(folder)
    with torch.inference_mode():
        out = reference(input_ids=ids, attention_mask=mask, pixel_values=through_pil(transform, images))
    scorer = load_pickscore(section_for(folder), CPU)
    torch.testing.assert_close(
        scorer.score(batch_of(images), PROMPTS), out.logits_per_image.diagonal(), rtol=0, atol=5e-2
    )
    assert float(out.logits_per_image.diagonal().std()) > 0.5, "the tolerance must be small beside the scores"


def section_for(folder: Path) -> ScorersSection:
    return ScorersSection(kind="pretrained", metrics=("pickscore",), pickscore=PickScoreSection(weights=str(folder)))


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"scorers\.pickscore\.weights=.*yuvalkirstain/PickScore_v1"):
        load_pickscore(section_for(tmp_path / "nothing"), CPU)
