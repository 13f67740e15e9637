"""Every family of pipelines with its real classes and random weights, against the family's own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.backbones.solvers import solver_of
from addiffusion.backbones.widths import feature_widths
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import ConfigError, WeightsError
from addiffusion.observation.latent import prompt_vector
from addiffusion.sampling.engine import Engine
from addiffusion.seeds import generator
from tests.addiffusion.backbones.family_runs import KINDS, SIZE, STEPS, run, safety, section


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{family}_like")


def test_widths_are_known_without_weights(family: str, folder: Path) -> None:
    chosen = section(family, folder)
    backbone, widths = load_backbone(chosen), feature_widths(chosen)
    assert widths.middle == backbone.middle_width
    assert widths.text == len(prompt_vector(backbone.encode_prompts(["cat"])[0]))


def test_widths_of_an_absent_model_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"backbone\.path=.*has no readable network configuration"):
        feature_widths(section("sd3", tmp_path / "nowhere"))


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 5000, "\udcff"])
def test_widths_in_a_damaged_file_are_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError, match=r"unet/config\.json can't be read as a JSON object") as caught:
        feature_widths(section("sd15", tmp_path))
    assert caught.value.message.isprintable()


def test_refines_find_their_words(family: str, folder: Path) -> None:
    backbone = load_backbone(section(family, folder))
    engine = run(backbone, guidance=1.0 if family == "flux" else 4.0, actions=(Action.REFINE,))
    for slot in (0, 1):
        mask = engine.refine_mask(slot)
        assert mask is not None
        assert mask.shape == backbone.latent_shape[1:]
        assert 0.05 < mask.mean() < 0.95
        assert 0 < engine.info(slot).attention_entropy <= 1.0
    features = backbone.last_pass().middle_features()
    assert features.shape[1] == backbone.middle_width
    assert features.dtype == torch.float32


def test_lower_precision_keeps_latents_in_float32(family: str, folder: Path) -> None:
    full = run(load_backbone(section(family, folder)), guidance=1.0).z0_pred
    for dtype, share in (("bfloat16", 0.1), ("float16", 0.02)):
        backbone = load_backbone(section(family, folder, dtype=dtype, channels_last=family in {"sd15", "sdxl"}))
        half = run(backbone, guidance=1.0).z0_pred
        assert half.dtype == torch.float32
        assert 0 < (half - full).abs().mean() < share * full.abs().mean()


def test_channels_last_changes_nothing_but_the_order_of_sums(sd15_like: Path) -> None:
    plain, other = (
        run(load_backbone(section("sd15", sd15_like, channels_last=last)), guidance=4.0) for last in (False, True)
    )
    torch.testing.assert_close(other.z0_pred, plain.z0_pred, rtol=1e-4, atol=1e-4)


def test_an_episode_is_bitwise_the_same_in_any_slot_beside_anyone(family: str, folder: Path) -> None:
    backbone = load_backbone(section(family, folder))
    sampler = SamplerSection(solver="pipeline", num_steps=STEPS, warmup_steps=1, finish_steps=1)
    first, second, other = backbone.encode_prompts(["red cat", "blue dog", ""])
    scale = 1.0 if family == "flux" else 4.0

    def episode(slot: int, company: dict[int, Any]) -> tuple[torch.Tensor, int]:
        engine = Engine(backbone, sampler, RefineSection(), slots=3, guidance_scale=scale)
        for place, embedding in company.items():
            engine.admit(place, embedding=embedding, seed=place)
        if company:
            engine.tick()
        engine.admit(slot, embedding=first, seed=3)
        while slot not in engine.done():
            engine.tick()
            refines = {slot} if slot in engine.deciding() and engine.info(slot).step == 1 else set[int]()
            engine.act({at: Action.REFINE if at in refines else Action.STOP for at in engine.deciding()})
        return engine.z0_pred[slot].clone(), engine.info(slot).nfe

    alone, nfe = episode(0, {})
    for slot, company in ((0, {1: second, 2: other}), (2, {0: second}), (1, {0: other, 2: second})):
        latent, passes = episode(slot, company)
        assert torch.equal(latent, alone)
        assert passes == nfe == 1 + 1 + 2 + 1 + 1


@pytest.mark.parametrize(
    ("name", "solver", "spacing"), [("sdxl", "euler_ancestral", "trailing"), ("sd15", "lcm", "pipeline")]
)
def test_few_step_baselines_draw_the_pipelines_image(name: str, solver: Any, spacing: Any, request: Any) -> None:
    """SDXL-Turbo and LCM-LoRA: no guidance, and fresh noise at every step."""
    path = request.getfixturevalue(f"{name}_like")
    backbone = load_backbone(section(name, path, guidance_scale=0.0))
    sampler = SamplerSection(solver=solver, spacing=spacing, num_steps=STEPS, warmup_steps=1, finish_steps=0)
    engine = run(backbone, guidance=0.0, sampler=sampler)
    pipeline: Any = DiffusionPipeline.from_pretrained(path, low_cpu_mem_usage=False, **safety(name))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = solver_of(backbone.scheduler, sampler)
    images = pipeline(
        "a red cat",
        num_inference_steps=STEPS,
        guidance_scale=0.0,
        latents=torch.randn(backbone.latent_shape, generator=generator(3, "latent"))[None],
        generator=generator(3, "solver"),
        height=SIZE,
        width=SIZE,
        output_type="pil",
    )
    difference = np.abs(engine.decode()[1].astype(int) - np.asarray(images.images[0]).astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.02


def test_an_image_size_the_model_can_not_make_is_refused(family: str, folder: Path) -> None:
    """A UNet's levels round up where halving leaves a rest; a transformer's patches do not."""
    step, size = (2, 17) if family in {"sd15", "sdxl"} else (4, 18)
    words = rf"backbone\.image_size={size} can't be taken.*multiples of {step}; the nearest is 16"
    with pytest.raises(ConfigError, match=words):
        load_backbone(section(family, folder, image_size=size))


def test_sd3_places_no_more_patches_than_it_has_learned(sd3_like: Path) -> None:
    assert load_backbone(section("sd3", sd3_like, image_size=32)).image_size == 32
    with pytest.raises(
        ConfigError, match=r"backbone\.image_size=36 can't be taken: this model places at most 32 pixels"
    ):
        load_backbone(section("sd3", sd3_like, image_size=36))


def test_another_familys_folder_is_named(family: str, folder: Path) -> None:
    other = next(kind for kind in KINDS.values() if kind != KINDS[family])
    with pytest.raises(ConfigError, match=f"set backbone.kind={KINDS[family]}"):
        load_backbone(section(family, folder, kind=other))


def test_flux_refuses_guidance(flux_like: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.guidance_scale=4 asks for guidance, which schnell"):
        load_backbone(section("flux", flux_like, guidance_scale=4.0))


def test_sdxl_leads_away_from_zeros(sdxl_like: Path) -> None:
    uncond = load_backbone(section("sdxl", sdxl_like)).uncond()
    assert not uncond.hidden.any()
    assert uncond.pooled is not None
    assert not uncond.pooled.any()


def test_a_preview_decoder_serves_only_previews(sd15_like: Path, embedded_like: Path) -> None:
    backbone = load_backbone(section("sd15", sd15_like, preview=str(embedded_like / "vae")))
    plain = load_backbone(section("sd15", sd15_like))
    z0 = torch.randn(2, *backbone.latent_shape, generator=generator(1))
    np.testing.assert_array_equal(backbone.decode(z0), plain.decode(z0))
    assert (backbone.previews, plain.previews) == (True, False)
    assert not np.array_equal(backbone.preview(z0), backbone.decode(z0))
    np.testing.assert_array_equal(plain.preview(z0), plain.decode(z0))
    with pytest.raises(WeightsError, match=r"backbone\.preview=.*can't be loaded as an AutoencoderTiny"):
        load_backbone(section("sd15", sd15_like, preview=str(sd15_like / "absent")))


def test_cuda_graphs_need_a_gpu(sd15_like: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.compile=cuda_graphs needs a GPU"):
        load_backbone(section("sd15", sd15_like, compile="cuda_graphs"))


@pytest.mark.slow
def test_a_compiled_backbone_says_what_the_plain_one_says(sd15_like: Path) -> None:
    plain, compiled = (load_backbone(section("sd15", sd15_like, compile=mode)) for mode in ("off", "default"))
    hidden = torch.stack([plain.uncond().hidden] * 2)
    z = torch.randn(2, *plain.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([20.0, 900.0])
    expected = plain.denoise(z, t, hidden)
    torch.testing.assert_close(compiled.denoise(z, t, hidden), expected, rtol=1e-4, atol=1e-5)
    maps = [backbone.last_pass().attention_maps([1]) for backbone in (plain, compiled)]
    torch.testing.assert_close(maps[1], maps[0], rtol=0, atol=1e-5)
