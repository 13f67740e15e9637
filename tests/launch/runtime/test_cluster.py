"""What can be said about Ray without starting it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from ray._private.utils import check_version_info, compute_version_info, validate_socket_filepath

from addiffusion.config import Config, RolloutSection, ScorersSection
from addiffusion.errors import ClusterError
from launch.runtime.cluster import check_resources, connection_error, needed_cpus, ray_joined, raylet_errors
from launch.runtime.ray_connect import refuse_silence
from tests.cluster.head import free_ports

HERE = compute_version_info()
"""Ray and Python of this environment."""


def test_the_default_fits_two_cores() -> None:
    assert needed_cpus(Config()) == 2.0
    check_resources(Config(), cpus=2, gpus=0, where="this machine")


def test_too_few_cpus_names_the_sum_and_the_way_out() -> None:
    config = Config(rollout=RolloutSection(workers=4, cpus_per_worker=1.5))
    with pytest.raises(ClusterError) as caught:
        check_resources(config, cpus=2, gpus=0, where="this machine")
    for word in (
        "4 rollout workers",
        "1.5 CPUs each",
        "need 7 CPUs",
        "has 2",
        "rollout.workers",
        "cluster.mode=serial",
    ):
        assert word in caught.value.message


def test_too_few_gpus() -> None:
    config = Config(rollout=RolloutSection(workers=2, gpus_per_worker=1), scorers=ScorersSection(gpus=0.5))
    with pytest.raises(ClusterError, match=r"need 2.5 GPUs, but the cluster has 1: lower"):
        check_resources(config, cpus=8, gpus=1, where="the cluster")


def mismatch(ray_version: str, python_version: str) -> Exception:
    """What Ray itself raises when the cluster has other versions, behind the sentence it shows."""
    try:
        check_version_info({"ray_version": ray_version, "python_version": python_version}, "node 10.0.0.1")
    except RuntimeError as error:
        failure = ConnectionError("Failed to connect")
        failure.__cause__ = error
        return failure
    raise AssertionError("Ray saw no difference")


@pytest.mark.parametrize(("ray_version", "python_version"), [("2.61.0", HERE[1]), (HERE[0], "3.12.1")])
def test_another_version_of_ray_or_python_is_one_sentence(ray_version: str, python_version: str) -> None:
    error = connection_error("auto", mismatch(ray_version, python_version))
    assert error.message == (
        f"the cluster at auto runs Ray {ray_version} on Python {python_version}, this environment has Ray {HERE[0]} on "
        f"Python {HERE[1]}: install the same versions on both, or set cluster.address=local."
    )


def test_a_head_that_is_not_there_is_one_sentence_at_once() -> None:
    (port,) = free_ports(1)
    refused = (
        rf"^no Ray cluster can be joined at 127.0.0.1:{port} \(.*refused\): check cluster.address, and that Ray runs"
    )
    with pytest.raises(ClusterError, match=refused), ray_joined(f"127.0.0.1:{port}"):
        pass


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "127.0.0.1:99999999", "no.such.host.invalid:6379"])
def test_what_is_no_address_is_one_sentence(address: str) -> None:
    with pytest.raises(ClusterError, match=rf"no Ray cluster can be joined at {address} \(.+\): check cluster.address"):
        refuse_silence(address)


def test_a_failed_start_says_why() -> None:
    error = connection_error("local", Exception("The current node timed out during startup."))
    assert "2 attempts" in error.message
    assert "cluster.mode=serial" in error.message


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize("address", ["local", "auto"])
def test_a_temporary_folder_that_is_too_deep_for_sockets_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what it remembers
    with pytest.raises(OSError, match="AF_UNIX") as refused:
        validate_socket_filepath(str(folder / "ray" / "session" / "sockets" / "plasma_store"))
    error = connection_error(address, refused.value)
    assert error.message == (
        "Ray can't work on this machine, because the path of its temporary folder is too long for a socket "
        f"({folder}/ray): set RAY_TMPDIR to a short path, such as /tmp."
    )


def test_the_cause_comes_from_the_raylets_log(tmp_path: Path) -> None:
    assert raylet_errors(tmp_path) == ""
    logs = tmp_path / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.err").write_text("one\n\ntwo\nthree\nagent did not start\n")
    assert raylet_errors(tmp_path) == "two / three / agent did not start"


@pytest.mark.parametrize(
    ("setting", "here"),
    [
        ({}, "there is none in {file}"),
        ({"RAY_AUTH_TOKEN": "x"}, "RAY_AUTH_TOKEN holds it"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=disabled switches it off"),
    ],
)
def test_another_token_is_one_sentence_that_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], here: str
) -> None:
    file = tmp_path / "auth_token"
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RAY_AUTH_TOKEN_PATH": str(file), **setting}.items():
        monkeypatch.setenv(name, value)
    error = connection_error("auto", RuntimeError("Token authentication is enabled but no\ntoken was found"))
    assert error.message == (
        f"the cluster at auto wants another token than this process has ({here.format(file=file)}): copy "
        "~/.ray/auth_token of its head here with mode 0600, or set RAY_AUTH_TOKEN_PATH."
    )
