"""The CLIP adapter against open_clip itself, with a small model of ViT-L-14-quickgelu's family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import ClipSection, HpsSection
from addiffusion.errors import ConfigError, WeightsError
from addiffusion.scorers.aesthetic import AestheticScorer, LaionHead
from addiffusion.scorers.clip import ClipScorer, load_tower
from addiffusion.scorers.hps import load_hps
from tests.addiffusion.scorers.forwards import image_forwards
from tests.addiffusion.scorers.tiny_scorers import (
    CPU,
    PROMPTS,
    batch_of,
    pictures,
    randomised,
    register_tiny_clip,
    through_pil,
)


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return register_tiny_clip(tmp_path_factory.mktemp("open_clip"))


@pytest.fixture(scope="module")
def reference(name: str) -> tuple[nn.Module, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return randomised(model), preprocess


@pytest.fixture(scope="module")
def checkpoint(reference: tuple[nn.Module, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(reference[0].state_dict(), path)
    return path


def reference_cosine(model: Any, pixels: Tensor, name: str, prompts: Sequence[str]) -> Tensor:
    with torch.inference_mode():
        images = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(name)(list(prompts)), normalize=True)
        return (images * texts).sum(dim=1)


def section_for(name: str, weights: Path) -> ScorersSection:
    return ScorersSection(kind="pretrained", clip=ClipSection(model=name, weights=str(weights)))


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_scores_equal_open_clips(
    name: str,
    reference: tuple[nn.Module, Any],
    checkpoint: Path,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, preprocess = reference
    images = pictures(*size)
    tower = load_tower(section_for(name, checkpoint), CPU)
    seen = image_forwards(tower, monkeypatch)
    ours = ClipScorer(tower).score(batch_of(images), PROMPTS)
    theirs = reference_cosine(model, through_pil(preprocess, images), name, PROMPTS)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 if size == (32, 32) else 2e-3)
    assert float(ours.std()) > 0.01, "the pictures must differ for this to mean anything"
    assert (tower.width, len(seen)) == (24, 1)


def test_score_and_aesthetic_share_one_forward(name: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, images = load_tower(section_for(name, checkpoint), CPU), batch_of(pictures(32, 32))
    seen = image_forwards(tower, monkeypatch)
    head = nn.Linear(24, 1)
    ClipScorer(tower).score(images, PROMPTS)
    aesthetic = AestheticScorer(tower, lambda embedding: head(embedding).squeeze(-1)).score(images, PROMPTS)
    assert len(seen) == 1
    with torch.inference_mode():
        torch.testing.assert_close(aesthetic, head(tower.embed_images(images)).squeeze(-1))


def test_laions_head_is_one_vector() -> None:
    """No activations (FACTS of the published predictor): so the five layers collapse, which tests each of them."""
    head = randomised(LaionHead())
    vectors = torch.randn(4, 768, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        origin, slope = head(torch.zeros(1, 768)), head(torch.eye(768)) - head(torch.zeros(1, 768))
        torch.testing.assert_close(head(vectors), vectors @ slope + origin, rtol=1e-4, atol=1e-4)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    assert shapes["layers.0.weight"] == (1024, 768)
    assert shapes["layers.7.weight"] == (1, 16)


def test_hps_sees_the_whole_of_an_oblong_image(name: str, reference: tuple[nn.Module, Any], tmp_path: Path) -> None:
    model, _ = reference
    path = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, path)
    section = ScorersSection(kind="pretrained", metrics=("hps",), hps=HpsSection(model=name, weights=str(tmp_path)))
    images = pictures(48, 64)
    whole = image_transform_v2(PreprocessCfg(size=32, resize_mode="longest"), is_train=False)
    ours = load_hps(section, CPU).score(batch_of(images), PROMPTS)
    theirs = reference_cosine(model, through_pil(whole, images), name, PROMPTS)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_an_unknown_model_is_a_config_error() -> None:
    section = ScorersSection(kind="pretrained", clip=ClipSection(model="ViT-Z-99"))
    with pytest.raises(ConfigError, match=r"scorers\.clip\.model=ViT-Z-99 is neither an open_clip model nor a folder"):
        load_tower(section, CPU)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (ClipSection(model="ViT-B-32", weights="/nowhere/clip.pt"), "nothing lies there"),
        (ClipSection(model="ViT-B-32", weights=None), "scorers.clip.weights=null"),
        (ClipSection(model="./no-such-folder"), "scorers.clip.model=./no-such-folder does not give open_clip_config"),
    ],
)
def test_missing_weights_are_one_sentence(clip: ClipSection, words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_tower(ScorersSection(kind="pretrained", clip=clip), CPU)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_weights_of_another_model_are_a_misfit(name: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(WeightsError, match=r"other\.pt, which scorers\.clip\.weights names, can't be loaded"):
        load_tower(section_for(name, path), CPU)
