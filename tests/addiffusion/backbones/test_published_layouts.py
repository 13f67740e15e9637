"""Folders in the very layout that each family is published in, written small by scripts/full_size_weights.py."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from requests import Response
from rich.console import Console
from safetensors.torch import load_file, save_file

from addiffusion.backbones import load_backbone
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError
from scripts import full_size_weights
from scripts.full_size.files import is_there
from scripts.full_size.models import MODELS, Order, files_of
from scripts.full_size.published import PARTS
from tests.addiffusion.backbones.family_runs import KINDS, run
from tests.addiffusion.backbones.family_runs import section as section_of

CUT = ("sd3", "flux")
"""Pipelines that are published in shards."""
PUBLISHED_GB = {
    "sd15": 4.27, "sdxl": 13.88, "sd3": 15.5, "flux": 33.7, "taesd": 0.01, "clip": 1.71, "aesthetic": 0.004,
    "dino": 0.087, "image_reward": 1.79, "hps": 1.97, "pickscore": 3.94,
}  # fmt: skip
"""Sizes of the hub's files that are loaded."""
FORMS = {
    "plain": Order(tiny=True, flux_blocks=(1, 1)),
    "fp16": Order(tiny=True, flux_blocks=(1, 1), fp16=True),
    "sharded": Order(tiny=True, flux_blocks=(1, 1), shard="100KB"),
}


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All pipelines in each form that they are published in."""
    made = {form: tmp_path_factory.mktemp(form) for form in FORMS}
    for form, root in made.items():
        full_size_weights.write(root, CUT if form == "sharded" else [*PARTS], FORMS[form], quiet())
    return made


def section(name: str, root: Path, **options: Any) -> BackboneSection:
    return section_of(name, root / name, **{"image_size": 64, **options})


def decoded(backbone: Any) -> np.ndarray:
    return backbone.decode(torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(0)))


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("model", MODELS)
def test_the_files_have_the_published_sizes(model: str) -> None:
    size = sum(file.size for file in files_of(model, Order())) / 1e9
    assert size == pytest.approx(PUBLISHED_GB[model], rel=0.01, abs=0.005)


def test_names_of_shards_and_variants_are_those_of_the_hub() -> None:
    flux = {str(file.path) for file in files_of("flux", Order())}
    assert "flux/transformer/diffusion_pytorch_model-00003-of-00003.safetensors" in flux
    assert "flux/transformer/diffusion_pytorch_model.safetensors.index.json" in flux
    assert "flux/text_encoder_2/model-00001-of-00002.safetensors" in flux
    half = {str(file.path) for file in files_of("sd3", Order(fp16=True))}
    assert "sd3/text_encoder_3/model.fp16-00002-of-00002.safetensors" in half
    assert "sd3/text_encoder_3/model.safetensors.index.fp16.json" in half
    assert not any("_3/" in str(file.path) for file in files_of("sd3", Order(t5=False)))
    names = load_names("sd15/vae/diffusion_pytorch_model.safetensors")
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in names


def load_names(path: str) -> set[str]:
    file = next(file for file in files_of("sd15", Order(tiny=True)) if str(file.path) == path)
    return set(getattr(file, "tensors"))  # noqa: B009 - not of every kind of file


def test_a_finished_file_is_not_written_again_and_a_cut_one_is(tmp_path: Path) -> None:
    order = FORMS["plain"]
    full_size_weights.write(tmp_path, ["sd15", "taesd"], order, quiet())
    files = [tmp_path / file.path for model in ("sd15", "taesd") for file in files_of(model, order)]
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    cut = max(files, key=lambda file: file.stat().st_size)
    cut.write_bytes(before[cut][1][:-1])
    full_size_weights.write(tmp_path, ["sd15", "taesd"], order, quiet())
    assert {file.read_bytes() for file in files} == {content for _, content in before.values()}
    rewritten = {file for file in files if file.stat().st_mtime_ns != before[file][0]}
    assert rewritten == {cut}
    assert all(is_there(file, tmp_path) for file in files_of("sd15", order))


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10**9))
    assert full_size_weights.main([str(tmp_path / "new"), "sd15"]) == 2
    assert "needs 4.3 GB more, but the disk has 1.0 GB free" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- what is loaded


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in PARTS for form in FORMS if form != "sharded" or name in CUT]
)
def test_every_published_form_loads_and_draws_with_its_own_scheduler(
    name: str, form: str, folders: dict[str, Path]
) -> None:
    backbone: Any = load_backbone(section(name, folders[form]))
    engine = run(backbone, guidance=1.0 if name == "flux" else 4.0)
    assert bool(torch.isfinite(engine.z0_pred).all())
    images = backbone.decode(engine.z0_pred)
    assert images.shape == (2, backbone.image_size, backbone.image_size, 3)
    assert np.ptp(images) > 0, "neither black nor NaN"


@pytest.mark.parametrize("name", PARTS)
def test_a_network_is_loaded_in_its_precision(name: str, folders: dict[str, Path]) -> None:
    """Never in float32 first, which would take twice the memory; its numbers are those of a cast."""
    full, half = (load_backbone(section(name, folders["plain"], dtype=dtype)) for dtype in ("float32", "bfloat16"))
    networks: Any = [getattr(one, "_network") for one in (full, half)]  # noqa: B009
    expected = networks[0].state_dict()
    for key, tensor in networks[1].state_dict().items():
        assert torch.equal(tensor, expected[key].to(torch.bfloat16)), key


def test_a_pipeline_saved_in_another_precision_under_plain_names_loads(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["plain"] / "sdxl", tmp_path / "sdxl"))
    for file in folder.rglob("*.safetensors"):
        tensors = {key: tensor.to(torch.bfloat16) for key, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    assert np.ptp(decoded(load_backbone(section("sdxl", tmp_path)))) > 0


@pytest.mark.parametrize("force_upcast", [True, False])
def test_an_autoencoder_that_overflows_in_half_precision_decodes(
    force_upcast: bool, folders: dict[str, Path], tmp_path: Path
) -> None:
    """SDXL's own one: whatever its configuration asks for, it works in float32 here."""
    folder = Path(shutil.copytree(folders["fp16"] / "sdxl", tmp_path / "sdxl"))
    config = folder / "vae/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": force_upcast}))
    (file,) = (folder / "vae").glob("*.safetensors")
    tensors = load_file(file)
    tensors["decoder.conv_in.weight"] *= 60_000
    save_file(tensors, file, metadata={"format": "pt"})
    backbone: Any = load_backbone(section("sdxl", tmp_path, dtype="float16"))
    assert {tensor.dtype for tensor in backbone.pipeline.vae.parameters()} == {torch.float32}
    assert np.ptp(decoded(backbone)) > 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "part"), [("flux", "transformer"), ("flux", "text_encoder_2"), ("sd3", "text_encoder_3")]
)
def test_a_shard_that_was_not_downloaded_is_named(
    name: str, part: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["sharded"] / name, tmp_path / name))
    lost = sorted((folder / part).glob("*.safetensors"))[-1]
    lost.unlink()
    with pytest.raises(WeightsError, match=f"{part} can't be loaded .*{lost.name}") as caught:
        load_backbone(section(name, tmp_path))
    assert caught.value.message.endswith("copy or download the whole folder again.")


def test_an_index_of_files_that_are_not_needed_may_be_left_there(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["sharded"] / "flux", tmp_path / "flux"))
    index = folder / "text_encoder_2/pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"shared.weight": "pytorch_model-00001-of-00002.bin"}}))
    assert np.ptp(decoded(load_backbone(section("flux", tmp_path)))) > 0


def test_a_shard_that_was_cut_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["sharded"] / "flux", tmp_path / "flux"))
    for part in ("transformer", "text_encoder_2"):
        cut = sorted((folder / part).glob("*.safetensors"))[-1]
        whole = cut.read_bytes()
        cut.write_bytes(whole[:-10])
        with pytest.raises(WeightsError, match=f"{part} can't be loaded .*{cut.name}"):
            load_backbone(section("flux", tmp_path))
        cut.write_bytes(whole)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_single_file_checkpoint_is_refused_with_the_way_to_a_folder(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"dreamshaper_8.{suffix}"
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(2)}, file)
    given = BackboneSection(kind="stable_diffusion", path=str(file), device="cpu")
    with pytest.raises(WeightsError, match=r"is a single file: .*StableDiffusionPipeline\.from_single_file"):
        load_backbone(given)


@pytest.mark.parametrize("kind", KINDS.values())
def test_hub_ids_that_can_not_be_had_are_one_sentence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = BackboneSection.model_validate({"kind": kind, "path": "owner/name", "guidance_scale": 1.0})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"backbone\.path='owner/name' can't be loaded as a") as caught:
        load_backbone(given)
    assert caught.value.message.count("\n") == 0
    assert "or a hub id that can be reached" in caught.value.message


@pytest.mark.parametrize("error", [GatedRepoError, RepositoryNotFoundError, LocalEntryNotFoundError])
def test_what_the_hub_refuses_is_one_sentence(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        options = {} if error is LocalEntryNotFoundError else {"response": Response()}
        raise error("403 Client Error.\n\nAccess to model owner/name is restricted.", **options)

    monkeypatch.setattr(StableDiffusion3Pipeline, "download", refuse)
    given = BackboneSection.model_validate({"kind": "sd3", "path": "owner/name"})
    with pytest.raises(WeightsError, match=r"backbone\.path='owner/name' can't be loaded as a .*403 Client Error"):
        load_backbone(given)


@pytest.mark.skipif(os.name != "posix", reason="the published cache is made of links")
def test_a_folder_of_links_as_the_hubs_cache_has_them_loads(folders: dict[str, Path], tmp_path: Path) -> None:
    source = folders["plain"] / "sd15"
    for file in filter(Path.is_file, source.rglob("*")):
        link = tmp_path / "sd15" / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    assert np.ptp(decoded(load_backbone(section("sd15", tmp_path)))) > 0
