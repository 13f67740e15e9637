"""The token: made once, closed to others, and nothing listens beyond loopback without it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from addiffusion.errors import ClusterError
from launch.runtime.token import ensure_token, is_loopback, secure, token_source


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "auth_token"))
    return tmp_path / "ray" / "auth_token"


def test_it_is_made_once_and_only_its_owner_reads_it(file: Path) -> None:
    assert token_source() == "missing"
    secure("127.0.0.1")
    first = file.read_text()
    assert len(first) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secure("10.0.0.1")
    assert file.read_text() == first
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]


def test_a_token_that_ray_made_is_closed(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("by ray get-auth-token --generate")
    file.chmod(0o644)
    assert ensure_token() == file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_that_start_together_share_one(file: Path) -> None:
    # fresh interpreters: a fork of this process would inherit whatever locks its threads happen to hold
    start = [sys.executable, "-c", "from launch.runtime.token import ensure_token; print(ensure_token())"]
    processes = [subprocess.Popen(start, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert {process.communicate(timeout=120)[0].strip() for process in processes} == {str(file)}
    assert len(file.read_text()) == 64


def test_a_home_without_hard_links_gets_its_token(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert ensure_token() == file
    assert len(file.read_text()) == 64
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]


def test_the_environments_token_needs_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 32)
    assert ensure_token() is None
    assert not file.exists()
    assert token_source() == "environment"


def test_without_a_token_only_loopback_is_allowed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    secure("127.0.0.1")
    with pytest.raises(ClusterError, match=r"cluster.bind=0.0.0.0 .* unset RAY_AUTH_MODE"):
        secure("0.0.0.0")
    assert not file.exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(file: Path) -> None:
    file.parent.write_text("a file where the folder should be")
    with pytest.raises(ClusterError, match="Ray's token can't be kept in"):
        ensure_token()


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.1.2.3", False), ("host", False)],
)
def test_what_is_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


LISTENERS = """
from addiffusion.config import Config
from launch.runtime.cluster import ray_running

with ray_running(Config()):
    import psutil  # Ray's own copy

    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                print("listens", connection.laddr.ip)
"""


def test_ray_on_one_machine_listens_on_loopback_only_with_a_token(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], capture_output=True, text=True, timeout=240, check=True, env=dict(os.environ)
    )
    heard = [line.split()[1].removeprefix("::ffff:") for line in done.stdout.splitlines() if "listens" in line]
    assert len(heard) >= 5
    assert set(heard) == {"127.0.0.1"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
