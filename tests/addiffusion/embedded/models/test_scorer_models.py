"""Model folders: what is saved loads again (by open_clip and timm themselves), and a broken folder says so."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import nn

from addiffusion.assets import weights_path
from addiffusion.embedded.models.aesthetic import AestheticHead, load_aesthetic, save_aesthetic
from addiffusion.embedded.models.clip import (
    CLIP_WIDTH,
    build_clip,
    image_embedding,
    load_clip,
    retrieval,
    save_clip,
    text_embedding,
)
from addiffusion.embedded.models.dino import build_dino, load_dino, save_dino
from addiffusion.embedded.models.pipeline_folder import save_module
from addiffusion.embedded.models.preference import PreferenceConfig, PreferenceModel, load_preference, save_preference
from addiffusion.embedded.models.tokenizer import build_tokenizer, encode
from addiffusion.embedded.world.captions import vocabulary
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.pixels import to_network
from addiffusion.errors import OutputError, WeightsError
from tests.disks import names, small_disk

TEXTS = ["a red circle", "two small blue stars left of an orange ring on a striped gray background"]


def test_clip_folder_is_loaded_by_open_clip(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(vocabulary())
    model = build_clip(len(tokenizer)).eval()
    save_clip(model, tokenizer, tmp_path)
    loaded: Any
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    assert torch.equal(tokenize(TEXTS), encode(tokenizer, TEXTS))
    assert preprocess is not None
    x = to_network(scene_batch(1, 0, 2).images)
    with torch.inference_mode():
        assert torch.equal(loaded.eval().encode_image(x, normalize=True), image_embedding(model, x))
        assert torch.equal(loaded.encode_text(tokenize(TEXTS), normalize=True), text_embedding(model, tokenize(TEXTS)))


def test_open_clip_preprocesses_as_we_do() -> None:
    images = scene_batch(1, 0, 1).images
    preprocess: Any
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{weights_path('clip')}")
    torch.testing.assert_close(preprocess(Image.fromarray(images[0])), to_network(images)[0])


def test_words_after_the_end_token_do_not_matter() -> None:
    model, tokenize = load_clip(weights_path("clip"))
    ids = tokenize(TEXTS[:1])
    changed = ids.clone()
    changed[0, -1] = 5
    with torch.inference_mode():
        assert torch.equal(text_embedding(model, ids), text_embedding(model, changed))


def test_dino_folder_is_loaded_by_timm(tmp_path: Path) -> None:
    model = build_dino().eval()
    save_dino(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    overlay = {"file": str(tmp_path / "model.safetensors")}
    by_timm = timm.create_model(
        config["architecture"], pretrained=True, pretrained_cfg_overlay=overlay, **config["model_args"]
    )
    assert _same_weights(model, by_timm)
    assert _same_weights(model, load_dino(tmp_path))


def test_preference_folder_keeps_weights_and_standardisation(tmp_path: Path) -> None:
    model = PreferenceModel(PreferenceConfig(vocab_size=50)).eval()
    model.config = replace(model.config, mean=0.5, std=2.0)
    save_preference(model, tmp_path)
    loaded = load_preference(tmp_path)
    assert loaded.config == model.config
    x, ids = torch.zeros(2, 3, 64, 64), torch.full((2, 24), 49)
    with torch.inference_mode():
        raw = loaded.judge(loaded.encode_image(x), ids)
        torch.testing.assert_close(loaded(x, ids), (raw - 0.5) / 2.0)


def test_preference_ignores_padding() -> None:
    model = PreferenceModel(PreferenceConfig(vocab_size=50)).eval()
    ids = torch.full((1, 24), 49)
    ids[0, :3] = torch.tensor([48, 7, 9])
    with torch.inference_mode():
        tokens = model.encode_image(torch.zeros(1, 3, 64, 64))
        score = model.judge(tokens, ids)
        model.token_position[5:] += 10.0
        torch.testing.assert_close(model.judge(tokens, ids), score)


def test_aesthetic_folder(tmp_path: Path) -> None:
    head = AestheticHead(CLIP_WIDTH)
    save_aesthetic(head, tmp_path)
    assert _same_weights(head, load_aesthetic(tmp_path, clip_width=CLIP_WIDTH))
    with pytest.raises(WeightsError, match="width 7"):
        load_aesthetic(tmp_path, clip_width=7)


@pytest.mark.parametrize("name", ["clip", "dino", "aesthetic", "preference"])
def test_a_missing_folder_is_one_sentence(tmp_path: Path, name: str) -> None:
    loaders = {
        "clip": load_clip,
        "dino": load_dino,
        "aesthetic": lambda folder: load_aesthetic(folder, clip_width=CLIP_WIDTH),
        "preference": load_preference,
    }
    with pytest.raises(WeightsError, match="embedded train"):
        loaders[name](tmp_path / "nowhere")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    shutil.copytree(weights_path("preference"), tmp_path / "preference")
    config = tmp_path / "preference" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), "width": 48}), encoding="utf-8")
    with pytest.raises(WeightsError, match="preference"):
        load_preference(tmp_path / "preference")


def test_retrieval_counts_hits_per_group_of_candidates() -> None:
    basis = torch.eye(4)
    assert retrieval(basis, basis, candidates=2) == 1.0
    assert retrieval(basis, basis[[1, 0, 2, 3]], candidates=2) == 0.5


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_models_are_written_with_the_rights_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_aesthetic(AestheticHead(CLIP_WIDTH), tmp_path / "aesthetic")
        save_dino(build_dino(), tmp_path / "dino")
        save_module(AutoencoderTiny(), tmp_path / "vae")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_a_full_disk_keeps_the_model_that_is_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        small = AutoencoderTiny(encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(4,) * 4)
        save_module(small, disk / "vae")
        before = names(disk)
        with pytest.raises(OutputError, match=r"vae can't be written \(No space left on device\): make room"):
            save_module(AutoencoderTiny(), disk / "vae")
        assert names(disk) == before
        assert AutoencoderTiny.from_pretrained(disk / "vae").config["encoder_block_out_channels"] == [4] * 4
