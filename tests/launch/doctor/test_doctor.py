"""What `addiffusion doctor` says, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from addiffusion.config import Config
from launch.cli.app import app
from launch.doctor.models import GATE_GB, GIB, needed_bytes, parts_of
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


def test_a_token_others_can_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "auth_token").write_text("x")
    (tmp_path / "auth_token").chmod(0o644)
    code, checks = doctor("--no-smoke", "rollout.workers=1")
    assert code == 0
    assert checks["token"]["state"] == "warning"
    assert "chmod 600" in str(checks["token"]["detail"])


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
