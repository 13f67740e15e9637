"""What can be said about Ray without starting it."""

from __future__ import annotations

from pathlib import Path

import pytest

from addiffusion.config import Config, RolloutSection, ScorersSection
from addiffusion.errors import ClusterError
from launch.cluster import check_resources, connection_error, needed_cpus, raylet_errors

MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.61.0\n    Python: 3.12.1\n"
    "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.9\n"
)


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


def test_another_version_of_ray_is_one_sentence() -> None:
    error = connection_error("auto", RuntimeError(MISMATCH))
    assert error.message == (
        "the cluster at auto runs Ray 2.61.0 on Python 3.12.1, this environment has Ray 2.60.0 on Python 3.11.9: "
        "install the same versions on both, or set cluster.address=local."
    )


def test_an_unreachable_cluster_is_one_sentence() -> None:
    error = connection_error("10.0.0.1:6379", ConnectionError("Could not\nreach it"))
    assert error.message.startswith("no Ray cluster can be joined at 10.0.0.1:6379 (Could not reach it)")


def test_a_failed_start_says_why() -> None:
    error = connection_error("local", Exception("The current node timed out during startup."))
    assert "2 attempts" in error.message
    assert "cluster.mode=serial" in error.message


def test_the_cause_comes_from_the_raylets_log(tmp_path: Path) -> None:
    assert raylet_errors(tmp_path) == ""
    logs = tmp_path / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.err").write_text("one\n\ntwo\nthree\nagent did not start\n")
    assert raylet_errors(tmp_path) == "two / three / agent did not start"


def test_a_missing_token_is_one_sentence() -> None:
    error = connection_error("auto", RuntimeError("Token authentication is enabled but no\ntoken was found"))
    assert error.message.startswith("the cluster at auto wants another token than this process has")
    assert "~/.ray/auth_token" in error.message
