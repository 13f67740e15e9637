"""One adapter for every StableDiffusionPipeline folder, checked against the pipeline itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone
from addiffusion.backbones.stable_diffusion import StableDiffusionBackbone
from addiffusion.config import BackboneSection
from addiffusion.errors import ConfigError, WeightsError
from tests.addiffusion.tiny_models import make_unet

FOLDERS = ("sd15_like", "embedded_like")


def section(path: Path | str, **options: Any) -> BackboneSection:
    return BackboneSection(kind="stable_diffusion", path=str(path), **{"device": "cpu", **options})


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> StableDiffusionBackbone:
    return StableDiffusionBackbone.from_section(section(folder))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)


def test_it_is_a_backbone_of_the_pipelines_shapes(backbone: StableDiffusionBackbone) -> None:
    assert isinstance(backbone, Backbone)
    assert backbone.latent_shape == (4, 8, 8)
    assert backbone.image_size == backbone.decode(torch.zeros(1, 4, 8, 8)).shape[1]


def test_embeddings_are_the_pipelines(backbone: StableDiffusionBackbone, pipeline: Any) -> None:
    prompts = ["red cat", "a", ""]
    expected = pipeline.encode_prompt(prompts, torch.device("cpu"), 1, False)[0]
    for embedding, states in zip(backbone.encode_prompts(prompts), expected, strict=True):
        torch.testing.assert_close(embedding.hidden, states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(backbone.uncond().hidden, expected[2], rtol=1e-5, atol=1e-5)


def test_an_embedding_does_not_depend_on_what_else_is_asked(folder: Path) -> None:
    prompts = [f"{'abcdefgh'[index % 8]} cat {'xyz'[index % 3]}" for index in range(24)]
    alone = [load(folder).encode_prompts([prompt])[0] for prompt in prompts[:2]]
    crowd = load(folder).encode_prompts([*prompts, *prompts[:1]])
    assert len(crowd) == 25
    for mine, theirs in zip(alone, crowd[:2], strict=True):
        assert torch.equal(mine.hidden, theirs.hidden)
    assert crowd[24] is crowd[0]


def load(folder: Path) -> StableDiffusionBackbone:
    return StableDiffusionBackbone.from_section(section(folder))


def test_only_words_are_kept(backbone: StableDiffusionBackbone) -> None:
    embedding, empty = backbone.encode_prompts(["ab", ""])
    assert embedding.keep.nonzero().flatten().tolist() == [1, 2]
    assert not empty.keep.any()
    (long,) = backbone.encode_prompts(["abc " * 60])
    assert long.keep.sum() == len(long.keep) - 2


def test_the_cache_keeps_the_most_recent_prompts(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, dropped = backbone.encode_prompts(["cat", "dog"])
    monkeypatch.setattr(backbone._prompts.cache, "capacity", 2 * kept.hidden.nbytes)
    backbone.encode_prompts(["cat"])
    backbone.encode_prompts(["cow"])
    assert backbone.encode_prompts(["cat"])[0] is kept
    assert backbone.encode_prompts(["dog"])[0] is not dropped


def test_images_equal_the_pipelines_postprocessing(backbone: StableDiffusionBackbone, pipeline: Any) -> None:
    z0 = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        decoded = pipeline.vae.decode(z0 / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    expected = pipeline.image_processor.postprocess(decoded, output_type="pil")
    images = backbone.decode(z0)
    assert (images.dtype, images.shape) == (np.uint8, (3, backbone.image_size, backbone.image_size, 3))
    np.testing.assert_array_equal(images, np.stack([np.asarray(image) for image in expected]))


@pytest.mark.parametrize("batch", [1, 3])
def test_many_latents_are_decoded_in_equal_batches(folder: Path, batch: int) -> None:
    """A part-filled last batch is padded, so a row decodes to the same image whatever follows it."""
    backbone = StableDiffusionBackbone.from_section(section(folder, decode_batch=batch))
    rows: list[int] = []
    decode = backbone.pipeline.vae.decode

    def counted(z: torch.Tensor, **options: Any) -> Any:
        rows.append(len(z))
        return decode(z, **options)

    backbone.pipeline.vae.decode = counted
    z0 = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    images = backbone.decode(z0)
    assert rows == [batch] * -(-5 // batch)
    np.testing.assert_array_equal(images[3:], backbone.decode(torch.cat([z0[3:], z0[:1]]))[:2])


def test_an_image_larger_than_the_models_own_can_be_decoded_in_tiles(sd15_like: Path, embedded_like: Path) -> None:
    """Tiles have their own norms, so they differ; a tiny autoencoder, which looks only around each pixel, has none."""
    for folder, differs in ((sd15_like, True), (embedded_like, False)):
        backbones = [
            StableDiffusionBackbone.from_section(section(folder, decode_tiling=tiling)) for tiling in (False, True)
        ]
        side = 2 * backbones[1].pipeline.vae.tile_latent_min_size
        z0 = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
        images = [one.decode(z0) for one in backbones]
        assert images[0].shape == images[1].shape
        assert (images[0] != images[1]).any() == differs


def test_the_network_runs_in_its_dtype_and_answers_in_float32(folder: Path, backbone: StableDiffusionBackbone) -> None:
    half = StableDiffusionBackbone.from_section(section(folder, dtype="bfloat16"))
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 900.0])
    hidden = torch.stack([embedding.hidden for embedding in backbone.encode_prompts(["cat", "dog"])])
    full_output, half_output = backbone.denoise(z, t, hidden), half.denoise(z, t, hidden)
    assert half_output.dtype == full_output.dtype == torch.float32
    assert 0 < (half_output - full_output).abs().max() < 0.1 * full_output.abs().max()
    with torch.inference_mode():
        assert half.last_pass().attention_maps([1]).shape == (1, len(hidden[0]), 8, 8)


def test_the_scheduler_is_a_fresh_copy_of_the_pipelines(
    backbone: StableDiffusionBackbone, pipeline: StableDiffusionPipeline
) -> None:
    scheduler = backbone.scheduler
    assert type(scheduler) is type(pipeline.scheduler)
    assert scheduler is not backbone.scheduler
    assert dict(scheduler.config) == dict(pipeline.scheduler.config)


def test_the_embedded_model_comes_through_the_same_door() -> None:
    backbone = load_backbone(BackboneSection(device="cpu"))
    assert isinstance(backbone, StableDiffusionBackbone)
    (embedding,) = backbone.encode_prompts(["a red circle"])
    assert embedding.keep.sum() == 3
    assert backbone.image_size == 64


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"backbone\.path=.*nowhere.*model_index\.json"):
        StableDiffusionBackbone.from_section(section(tmp_path / "nowhere"))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    make_unet().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"backbone\.path"):
        StableDiffusionBackbone.from_section(section(tmp_path))


def test_an_unknown_device_is_refused(sd15_like: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.device='tpu'"):
        StableDiffusionBackbone.from_section(section(sd15_like, device="tpu"))


def test_a_network_of_other_channels_is_refused(sd15_like: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(sd15_like, low_cpu_mem_usage=False)
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(ConfigError, match="takes 9 channels but its autoencoder has 4"):
        StableDiffusionBackbone(pipeline, section(sd15_like))
