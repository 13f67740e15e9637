"""What `addiffusion doctor` says, and its exit code."""

from __future__ import annotations

import json
import shutil
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from addiffusion.backbones import load_backbone
from addiffusion.config import BackboneSection, Config
from launch.cli.app import app
from launch.doctor.doctor import _bytecode
from launch.doctor.models import GATE_GB, GIB, Part, needed_bytes, parts_of
from tests.addiffusion.tiny_models import save_flux_like, save_sd3_like, save_sd15_like, save_sdxl_like
from tests.cluster.head import ROOT


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, object]]]:
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    return result.exit_code, {check["name"]: check for check in report["checks"]}


@pytest.fixture(autouse=True)
def token_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "auth_token"))


def test_the_default_can_run_and_a_tiny_run_proves_it() -> None:
    code, checks = doctor("rollout.workers=1", "--cluster-file", str(ROOT / "cluster.yaml"))
    assert code == 0
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert checks["smoke"]["seconds"] > 0  # pyright: ignore[reportOperatorIssue]
    clip = checks["scorer clip"]
    assert Path(str(clip["path"])).is_dir()
    assert clip["bytes"] > 1e6  # pyright: ignore[reportOperatorIssue]


def test_what_is_missing_or_too_large_fails_with_its_fix(tmp_path: Path) -> None:
    broken = tmp_path / "cluster.yaml"
    broken.write_text((ROOT / "cluster.yaml").read_text().replace("--dashboard-host=127.0.0.1", ""))
    code, checks = doctor(
        "--no-smoke", "--cluster-file", str(broken), "backbone.kind=flux", f"backbone.path={tmp_path / 'none'}",
        "scorers.kind=pretrained", "rollout.workers=500",
    )  # fmt: skip
    assert code == 1
    failed = {name for name, check in checks.items() if check["state"] == "failed"}
    assert {"cluster file", "cluster", "backbone flux", "memory"} <= failed
    assert "rollout.workers" in str(checks["cluster"]["detail"])


@pytest.mark.parametrize(
    ("kept", "present", "state"), [(False, False, "warning"), (False, True, "ok"), (True, False, "ok")]
)
def test_processes_that_compile_what_they_import_are_a_warning(
    kept: bool, present: bool, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "__init__.py"
    if present:
        (file := Path(cache_from_source(str(library)))).parent.mkdir()
        file.write_bytes(b"")
    monkeypatch.setattr("launch.doctor.doctor.torch.__file__", str(library))
    monkeypatch.setattr("sys.dont_write_bytecode", not kept)
    check = _bytecode()
    assert check.state == state
    assert ("compileall" in check.detail) == (state == "warning")


def test_a_token_others_can_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "auth_token").write_text("x")
    (tmp_path / "auth_token").chmod(0o644)
    code, checks = doctor("--no-smoke", "rollout.workers=1")
    assert code == 0
    assert checks["token"]["state"] == "warning"
    assert "chmod 600" in str(checks["token"]["detail"])


@pytest.fixture(scope="module")
def sd15_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd15_like(tmp_path_factory.mktemp("sd15"))


@pytest.mark.parametrize(
    ("kind", "save"),
    [("stable_diffusion", save_sd15_like), ("sdxl", save_sdxl_like), ("sd3", save_sd3_like), ("flux", save_flux_like)],
)
def test_memory_is_told_from_what_lies_in_the_files(kind: str, save: Any, tmp_path: Path) -> None:
    """Whatever precision the files are in: the network and T5 work in the configured one, all else in float32."""
    folder = save(tmp_path)
    options = ["scorers.kind=embedded", "backbone.image_size=64", "backbone.dtype=bfloat16", "cluster.mode=serial"]
    _, checks = doctor("--no-smoke", f"backbone.kind={kind}", f"backbone.path={folder}", *options)
    section = BackboneSection.model_validate(
        {"kind": kind, "path": str(folder), "dtype": "bfloat16", "guidance_scale": 1.0, "device": "cpu"}
    )
    loaded: Any = load_backbone(section)
    parts = [part for part in loaded.pipeline.components.values() if isinstance(part, nn.Module)]
    weights = [tensor for part in parts for tensor in {**part.state_dict()}.values() if tensor.is_floating_point()]
    sizes: Any = checks["memory"]["parts"]
    expected = sum(tensor.numel() * tensor.element_size() for tensor in weights) * 1.25 / GIB
    assert sizes[f"backbone {kind}"] == pytest.approx(expected, rel=0.02)
    assert sizes["decoding"] > 0


def test_several_forms_of_the_same_weights_are_counted_once(sd15_like: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd15_like, tmp_path / "both"))
    for file in folder.rglob("*.safetensors"):
        half = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"), metadata={"format": "pt"})
    counts = [pipeline_part(path).parameters for path in (folder, sd15_like)]
    assert counts[0] == counts[1] > 0


def test_a_file_that_was_cut_off_is_named(sd15_like: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd15_like, tmp_path / "cut"))
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    code, checks = doctor("--no-smoke", "backbone.kind=stable_diffusion", f"backbone.path={folder}")
    assert code == 1
    assert f"{file} can't be read as weights" in str(checks["models"]["detail"])


def pipeline_part(path: Path) -> Part:
    return parts_of(Config.model_validate({"backbone": {"kind": "stable_diffusion", "path": str(path)}}))[0]


def test_sd15_and_every_scorer_fit_the_gate() -> None:
    config = Config.model_validate(
        {
            "backbone": {"kind": "stable_diffusion", "path": "owner/name"},
            "scorers": {"kind": "pretrained", "metrics": ["hps", "pickscore"]},
        }
    )
    parts = parts_of(config)
    assert len(parts) == 7
    assert 15 < sum(map(needed_bytes, parts)) / GIB < GATE_GB
