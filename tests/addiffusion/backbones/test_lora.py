"""LoRA files as trainers save them, against diffusers' own loader and against the change they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from addiffusion.backbones import load_backbone
from addiffusion.backbones.guided import GuidedPipeline
from addiffusion.backbones.loading import load_pipeline
from addiffusion.backbones.lora import fuse_lora
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError
from tests.addiffusion.tiny_models import make_unet

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn2"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
UNET = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", CONVOLUTION)
TEXT = tuple(f"encoder.layers.{layer}.self_attn.{one}_proj" for layer in (0, 1) for one in ("q", "k", "v", "out"))
TRANSFORMER = ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k")
RANK = 2


def pair(weight: Tensor, rank: int = RANK, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(down, up) for a layer."""
    draws = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *weight.shape[1:], generator=draws)
    return down, torch.randn(weight.shape[0], rank, *[1] * (weight.dim() - 2), generator=draws)


def make_lora(unet: Any, *, names: tuple[str, ...] = UNET, alphas: tuple[float | None, ...] = ()) -> dict[str, Tensor]:
    """As kohya's scripts write one; alphas are 1 unless given, and None leaves one out."""
    tensors: dict[str, Tensor] = {}
    for index, name in enumerate(names):
        down, up = pair(unet.get_submodule(name).weight, seed=index)
        key = "lora_unet_" + name.replace(".", "_")
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        alpha = alphas[index] if alphas else 1.0
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def in_diffusers_names(part: str, model: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index, name in enumerate(names):
        down, up = pair(model.get_submodule(name).weight, seed=index)
        tensors |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
    return tensors


def loaded(folder: Path, **options: Any) -> Any:
    return DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False, **options)


def saved(tensors: dict[str, Tensor], tmp_path: Path) -> str:
    file = tmp_path / "lora.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return str(file)


def changes(pipeline: Any, before: Any, part: str = "unet") -> dict[str, Tensor]:
    """Difference of every weight that was changed."""
    old = getattr(before, part).state_dict()
    new = getattr(pipeline, part).state_dict()
    assert old.keys() == new.keys()
    return {key: new[key] - tensor for key, tensor in old.items() if not torch.equal(tensor, new[key])}


# ---------------------------------------------------------------- what is applied


def by_diffusers(folder: Path, file: str) -> Any:
    pipeline = loaded(folder)
    pipeline.load_lora_weights(file)
    pipeline.fuse_lora(components=pipeline._lora_loadable_modules)
    pipeline.unload_lora_weights()
    return pipeline


def make_kohya_flux(transformer: Any) -> dict[str, Tensor]:
    """Names of the original repository: one matrix for query, key and value."""
    query = transformer.get_submodule("transformer_blocks.0.attn.to_q").weight
    down, up = pair(torch.empty(3 * query.shape[0], query.shape[1]))
    key = "lora_unet_double_blocks_0_img_attn_qkv"
    return {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}


def make_original_sdxl(unet: Any) -> dict[str, Tensor]:
    down, up = pair(unet.get_submodule(f"{ATTENTION}.to_q").weight)
    key = "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_q"
    return {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}


def make_processors(unet: Any) -> dict[str, Tensor]:
    down, up = pair(unet.get_submodule(f"{ATTENTION}.to_q").weight)
    key = f"unet.{ATTENTION}.processor.to_q_lora"
    return {f"{key}.down.weight": down, f"{key}.up.weight": up}


def make_dora(unet: Any) -> dict[str, Tensor]:
    tensors = in_diffusers_names("unet", unet, UNET[:2])
    draws = torch.Generator().manual_seed(9)
    for name in UNET[:2]:
        width = len(unet.get_submodule(name).weight)
        tensors[f"unet.{name}.lora_magnitude_vector"] = torch.rand(width, generator=draws)
    return tensors


FORMS: dict[str, tuple[str, Any]] = {
    "kohya": ("sd15", lambda pipeline: make_lora(pipeline.unet)),
    "diffusers": ("sd15", lambda pipeline: in_diffusers_names("unet", pipeline.unet, UNET)),
    "processors": ("sd15", lambda pipeline: make_processors(pipeline.unet)),
    "dora": ("sd15", lambda pipeline: make_dora(pipeline.unet)),
    "text": (
        "sd15",
        lambda pipeline: in_diffusers_names("text_encoder", pipeline.text_encoder, TEXT),
    ),
    "sdxl of the original": ("sdxl", lambda pipeline: make_original_sdxl(pipeline.unet)),
    "sd3": ("sd3", lambda pipeline: in_diffusers_names("transformer", pipeline.transformer, TRANSFORMER)),
    "flux": ("flux", lambda pipeline: in_diffusers_names("transformer", pipeline.transformer, TRANSFORMER)),
    "flux of the original": ("flux", lambda pipeline: make_kohya_flux(pipeline.transformer)),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_diffusers_reads_is_applied_as_diffusers_applies_it(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    family, make = FORMS[form]
    folder = request.getfixturevalue(f"{family}_like")
    pipeline, before = loaded(folder), loaded(folder)
    file = saved(make(pipeline), tmp_path)
    fuse_lora(pipeline, file)
    expected = by_diffusers(folder, file)
    changed = 0
    for part in pipeline._lora_loadable_modules:
        for key, tensor in changes(pipeline, before, part).items():
            changed += 1
            reference = getattr(expected, part).state_dict()[key] - getattr(before, part).state_dict()[key]
            torch.testing.assert_close(tensor, reference, rtol=1e-5, atol=1e-5)
        assert changes(expected, before, part).keys() == changes(pipeline, before, part).keys()
    assert changed > 0


def test_two_loads_are_bitwise_the_same(sd15_like: Path, tmp_path: Path) -> None:
    pipelines = [loaded(sd15_like) for _ in range(2)]
    file = saved(make_lora(pipelines[0].unet), tmp_path)
    for number, pipeline in enumerate(pipelines):
        torch.manual_seed(number)
        fuse_lora(pipeline, file)
    assert not changes(*pipelines)


@pytest.mark.parametrize("alphas", [(1.0, 2.0, 8.0), (4.0, None, 1.0), (None, None, 3.0)])
def test_every_layer_has_its_own_alpha(alphas: tuple[float | None, ...], sd15_like: Path, tmp_path: Path) -> None:
    """diffusers gives attention layers the commonest alpha of the file."""
    pipeline, before = loaded(sd15_like), loaded(sd15_like)
    fuse_lora(pipeline, saved(make_lora(pipeline.unet, alphas=alphas), tmp_path))
    changed = changes(pipeline, before)
    for index, (name, alpha) in enumerate(zip(UNET, alphas, strict=True)):
        down, up = pair(before.unet.get_submodule(name).weight, seed=index)
        expected = (up.flatten(1) @ down.flatten(1)) * (RANK if alpha is None else alpha) / RANK
        actual = changed.pop(f"{name}.weight")
        torch.testing.assert_close(actual.flatten(1), expected, rtol=1e-4, atol=1e-4)
    assert not changed


def test_alpha_in_the_files_metadata_is_used(sd15_like: Path, tmp_path: Path) -> None:
    pipeline, before = loaded(sd15_like), loaded(sd15_like)
    name = f"{ATTENTION}.to_q"
    tensors = {
        key.removeprefix("unet."): tensor for key, tensor in in_diffusers_names("unet", pipeline.unet, (name,)).items()
    }
    metadata = LoraConfig(r=RANK, lora_alpha=16, target_modules=[name]).to_dict()
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=tensors, unet_lora_adapter_metadata=metadata, weight_name="lora.safetensors"
    )
    fuse_lora(pipeline, str(tmp_path / "lora.safetensors"))
    down, up = pair(before.unet.get_submodule(name).weight)
    torch.testing.assert_close(changes(pipeline, before)[f"{name}.weight"], 16 / RANK * up @ down, rtol=1e-4, atol=1e-4)


def test_metadata_that_names_no_layers_is_refused(sd15_like: Path, tmp_path: Path) -> None:
    pipeline = loaded(sd15_like)
    file = tmp_path / "lora.safetensors"
    for text, words in (('{"unet.r": 2, "unet.lora_alpha": 16}', "without target_modules"), ("{", "that is no JSON")):
        save_file(in_diffusers_names("unet", pipeline.unet, UNET), file, metadata={"lora_adapter_metadata": text})
        with pytest.raises(WeightsError, match=words):
            fuse_lora(pipeline, str(file))


def test_a_backbone_and_the_guided_pipelines_load_their_lora(sd15_like: Path, tmp_path: Path) -> None:
    section = BackboneSection(kind="stable_diffusion", path=str(sd15_like), device="cpu")
    before: Any = load_backbone(section)
    file = saved(make_lora(before.pipeline.unet), tmp_path)
    changed = section.model_copy(update={"lora": file})
    backbone: Any = load_backbone(changed)
    assert len(changes(backbone.pipeline, before.pipeline)) == len(UNET)
    guided = GuidedPipeline("self-attention-guidance", changed)
    assert len(changes(guided._pipeline, before.pipeline)) == len(UNET)
    cast: Any = load_backbone(changed.model_copy(update={"dtype": "bfloat16"}))
    sums = backbone.pipeline.unet.state_dict()  # added up in float32, then rounded
    assert all(torch.equal(tensor, sums[key].bfloat16()) for key, tensor in cast.pipeline.unet.state_dict().items())


# ---------------------------------------------------------------- what is refused


def extra(**tensors: Tensor) -> Any:
    def make(unet: Any) -> dict[str, Tensor]:
        return in_diffusers_names("unet", unet, UNET) | {
            key.replace("__", "."): tensor for key, tensor in tensors.items()
        }

    return make


def kohya_with(key: str, tensor: Tensor) -> Any:
    return lambda unet: make_lora(unet) | {key: tensor}


LAYER = "lora_unet_" + UNET[0].replace(".", "_")
MAGNITUDE = f"unet__{UNET[0].replace('.', '__')}__lora_magnitude_vector"


def renamed(old: str, new: str) -> Any:
    return lambda unet: {
        key.replace(old, new, 1): tensor for key, tensor in in_diffusers_names("unet", unet, UNET).items()
    }


def narrow(unet: Any) -> dict[str, Tensor]:
    tensors = in_diffusers_names("unet", unet, UNET[:1])
    return {key: tensor[:, :3] if "lora_A" in key else tensor for key, tensor in tensors.items()}


NOWHERE = {"unet__nowhere__lora_A__weight": torch.ones(2, 4), "unet__nowhere__lora_B__weight": torch.ones(4, 2)}
REFUSED: dict[str, tuple[Any, str]] = {
    "unknown layer": (extra(**NOWHERE), r"'unet\.nowhere\.lora_A\.weight' and 1 more"),
    "unknown part": (extra(text_encoder_9__x__lora_A__weight=torch.ones(2, 4)), r"'text_encoder_9\.x\.lora_A\.weight'"),
    "one of a pair": (extra(unet__conv_in__lora_A__weight=torch.ones(2, 4, 3, 3)), r"'unet\.conv_in\.lora_A\.weight'"),
    "bias": (extra(unet__conv_in__diff_b=torch.ones(8)), r"'unet\.conv_in\.diff_b'"),
    "dora_scale": (kohya_with(f"{LAYER}.dora_scale", torch.ones(16, 1)), "dora_scale'"),
    "loha": (kohya_with(f"{LAYER}.hada_w1_a", torch.ones(16, 2)), "hada_w1_a"),
    "alpha alone": (kohya_with("lora_unet_conv_in.alpha", torch.tensor(1.0)), r"_conv_in\.alpha' without a pair"),
    "half a dora": (extra(**{MAGNITUDE: torch.ones(16)}), r"lora_[AB]\.weight'"),
    "no prefix": (renamed("unet.", ""), r"'down_blocks\.0\.resnets"),
    "peft's prefix": (renamed("unet.", "base_model.model."), r"'base_model\.model\.down"),
    "another shape": (narrow, "can't be applied to this model .*size mismatch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tensor_that_would_have_no_effect_is_named(case: str, sd15_like: Path, tmp_path: Path) -> None:
    make, words = REFUSED[case]
    pipeline = loaded(sd15_like)
    file = saved(make(pipeline.unet), tmp_path)
    with pytest.raises(WeightsError, match=words) as caught:
        fuse_lora(pipeline, file)
    assert f"backbone.lora={file!r}" in caught.value.message
    assert "Names that are read" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\x80\x04N."])
def test_a_damaged_file_is_named(content: bytes, sd15_like: Path, tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"lora\.safetensors can't be read as a file of tensors"):
        fuse_lora(loaded(sd15_like), str(file))


def test_absent_and_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors can't be read"):
        fuse_lora(None, str(tmp_path / "absent.safetensors"))
    with pytest.raises(WeightsError, match=r"lora\.pt' is no \.safetensors file"):
        fuse_lora(None, str(tmp_path / "lora.pt"))


def test_a_lora_of_another_family_is_refused(sdxl_like: Path, sd3_like: Path, tmp_path: Path) -> None:
    other = loaded(sd3_like)
    file = saved(in_diffusers_names("transformer", other.transformer, TRANSFORMER), tmp_path)
    with pytest.raises(WeightsError, match=r"'transformer\.transformer_blocks\.0\.attn\.to_k\.lora_A\.weight' and 3"):
        fuse_lora(loaded(sdxl_like), file)
    with pytest.raises(WeightsError, match="no effect"):
        fuse_lora(other, saved(make_lora(make_unet()), tmp_path))


def test_pipelines_of_this_library_have_their_loras_fused_too(sd15_like: Path, tmp_path: Path) -> None:
    section = BackboneSection(kind="stable_diffusion", path=str(sd15_like), device="cpu")
    pipeline = load_pipeline(section, StableDiffusionPipeline, requires_safety_checker=False)
    fuse_lora(pipeline, saved(make_lora(pipeline.unet), tmp_path))
    assert not any("lora" in name for name, _ in pipeline.unet.named_modules())
