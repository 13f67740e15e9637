"""The text encoder's first lessons: right tags, and a model that learns them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from addiffusion.embedded.making.context import TrainingBudget, TrainingContext
from addiffusion.embedded.making.text_training import (
    _GROUP,
    _NOUN,
    _WHOLE,
    TextPart,
    _tags,
    draw_captions,
    load_text_encoder,
)
from addiffusion.embedded.making.tokenizer_training import TokenizerPart
from addiffusion.embedded.world.captions import parse_caption
from addiffusion.errors import WeightsError


def context(out: Path, steps: int) -> TrainingContext:
    return TrainingContext(
        out=out,
        work=out / "training",
        seed=0,
        device=torch.device("cpu"),
        budget=TrainingBudget(max_steps=steps, max_pool=64),
    )


def named(tags: list[int], kinds: dict[str, tuple[object, ...]]) -> dict[str, object]:
    return {name: values[tag] for tag, (name, values) in zip(tags, kinds.items(), strict=True)}


def test_tags_say_what_the_caption_says() -> None:
    nouns, whole = _tags("two small red stars left of a blue ring on a striped gray background")
    assert [named(tags, _NOUN) for tags in nouns] == [
        {"count": 2, "size": "small", "color": "red", "shape": "star", "group": 0},
        {"count": 1, "size": None, "color": "blue", "shape": "ring", "group": 1},
    ]
    said = named(whole, _WHOLE)
    assert said["relation"] == "left of"
    assert said["position"] is None
    assert (said["texture"], said["background"]) == ("striped", "gray")
    assert said["count 1"] == 1
    assert said["shape 2"] is None


@pytest.mark.parametrize("caption", draw_captions(7, 40))
def test_every_caption_has_tags_for_each_noun(caption: str) -> None:
    nouns, whole = _tags(caption)
    groups = parse_caption(caption).groups
    assert [named(tags[:-1], _GROUP) for tags in nouns] == [
        {"count": group.count, "size": group.size, "color": group.color, "shape": group.shape} for group in groups
    ]
    assert len(whole) == len(_WHOLE)


def test_some_lessons_teach_something(tmp_path: Path) -> None:
    TokenizerPart().train(context(tmp_path, 1))
    report = TextPart().train(context(tmp_path, 60))
    assert report.metrics["right"] > 0.6
    encoder = load_text_encoder(context(tmp_path, 60))
    assert sum(weight.numel() for weight in encoder.parameters()) > 100_000


def test_without_lessons_the_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="`text` first"):
        load_text_encoder(context(tmp_path, 1))
