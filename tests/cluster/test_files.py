"""The shipped cluster files: Ray's schema, the locked version, closed to others, small uploads."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from addiffusion.errors import ClusterError, ConfigError
from launch.doctor.cluster_file import load_cluster_file, problems
from launch.runtime.placement import REWARD, ROLLOUT
from launch.serving.application import build
from serving.app import API, ENGINE
from serving.security import KEY_VARIABLE
from tests.cluster.head import ROOT

LAUNCHER_FILES = ["cluster.yaml", "cluster/gcp.yaml", "cluster/on_premises.yaml"]
ALL_FILES = [
    *LAUNCHER_FILES,
    "cluster/kuberay.yaml",
    "cluster/kuberay_job.yaml",
    "cluster/kuberay_serve.yaml",
    "serve.yaml",
    "cluster/slurm.sbatch",
]
RAY = version("ray")


def test_the_locked_ray_is_the_installed_one() -> None:
    (locked,) = re.findall(r'name = "ray"\nversion = "([^"]+)"', (ROOT / "uv.lock").read_text())
    assert locked == RAY


@pytest.mark.parametrize("file", LAUNCHER_FILES)
def test_it_follows_rays_schema_and_has_no_known_problem(file: str) -> None:
    assert problems(ROOT / file) == []


@pytest.mark.parametrize("file", ALL_FILES)
def test_its_header_says_how_to_start_watch_and_stop(file: str) -> None:
    header = "".join(line for line in (ROOT / file).read_text().splitlines(keepends=True) if line.startswith("#"))
    assert all(re.search(rf"^#   {word} ", header, re.MULTILINE) for word in ("start", "watch", "stop"))


@pytest.mark.parametrize("file", LAUNCHER_FILES)
def test_every_role_has_its_resource(file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.search(rf"\b{ROLLOUT}\W+1", text)
    assert re.search(rf"\b{REWARD}\W+1", text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"docker": {"image": "rayproject/ray:2.9.0-py311-gpu", "container_name": "x"}}, f"must carry Ray {RAY}"),
        ({"head_start_ray_commands": ["RAY_AUTH_MODE=token ray start --head"]}, "--dashboard-host=127.0.0.1"),
        ({"worker_start_ray_commands": ["ray start --address=$RAY_HEAD_IP:6379"]}, "RAY_AUTH_MODE=token"),
        ({"file_mounts": {}}, "must give every node the token"),
    ],
)
def test_a_changed_file_gets_one_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    (found,) = problems(changed(tmp_path, change))
    assert sentence in found


def test_a_file_without_a_gpu_type_gets_one_sentence(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for kind in config["available_node_types"].values():
        del kind["resources"]["GPU"]
    (found,) = problems(changed(tmp_path, config))
    assert "has a GPU, so rollout.gpus_per_worker" in found


def test_ssh_that_is_open_to_the_world_gets_one_sentence(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    rule = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    config["provider"]["security_group"]["IpPermissions"] = [rule]
    (found,) = problems(changed(tmp_path, config))
    assert "opens more than ssh from your own address" in found


def test_an_unknown_key_or_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not follow the schema of Ray"):
        load_cluster_file(changed(tmp_path, {"max_werkers": 3}))
    with pytest.raises(ClusterError, match="can't be read"):
        load_cluster_file(tmp_path / "nothing.yaml")


def changed(folder: Path, change: dict[str, Any]) -> Path:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "cluster.yaml").read_text()) | change))
    return file


@pytest.mark.parametrize("file", ["cluster/kuberay.yaml", "cluster/kuberay_job.yaml"])
def test_kubernetes_gets_the_locked_version_a_token_and_the_roles(file: str) -> None:
    documents = list(yaml.safe_load_all((ROOT / file).read_text()))
    (first, *_) = documents
    assert first["apiVersion"] == "ray.io/v1"
    spec = first["spec"].get("rayClusterSpec", first["spec"])
    assert (spec["rayVersion"], spec["authOptions"]) == (RAY, {"mode": "token"})
    (group,) = spec["workerGroupSpecs"]
    assert REWARD in spec["headGroupSpec"]["rayStartParams"]["resources"]
    assert ROLLOUT in group["rayStartParams"]["resources"]
    for template in (spec["headGroupSpec"]["template"], group["template"]):
        (container,) = template["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            v["name"] for v in template["spec"]["volumes"]
        }
    kinds = [document["kind"] for document in documents]
    assert kinds in (["RayCluster", "PersistentVolumeClaim", "NetworkPolicy"], ["RayJob"])


def serve_files() -> list[tuple[str, ServeDeploySchema]]:
    service, _ = yaml.safe_load_all((ROOT / "cluster/kuberay_serve.yaml").read_text())
    assert (service["spec"]["rayClusterConfig"]["rayVersion"], service["kind"]) == (RAY, "RayService")
    inner = yaml.safe_load(service["spec"]["serveConfigV2"])
    own = yaml.safe_load((ROOT / "serve.yaml").read_text())
    return [(name, ServeDeploySchema.model_validate(config)) for name, config in (("kuberay", inner), ("own", own))]


def test_serve_files_follow_rays_schema_and_the_applications_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    for name, config in serve_files():
        (application,) = config.applications
        assert application.import_path == "launch.serving.application:build"
        assert {deployment.name for deployment in application.deployments} == {ENGINE, API}
        assert application.args["host"] == config.http_options.host
        if name == "own":
            built(application.args)
        else:
            with pytest.raises(ConfigError, match=KEY_VARIABLE):
                built(application.args)


def built(arguments: dict[str, Any]) -> Application:
    """As Serve calls it."""
    return call_user_app_builder_with_args_if_necessary(build, arguments)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"polcy": "none"}, "unknown key polcy, did you mean policy"),
        ({"waiting": 0}, "waiting can't be 0"),
        ({"overrides": "x"}, "overrides can't be"),
    ],
)
def test_arguments_of_serve_yaml_that_cannot_be_used_get_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"args of serve.yaml: {said}"):
        built(given)


def test_the_image_starts_from_the_locked_version() -> None:
    assert f"FROM rayproject/ray:{RAY}-py311-gpu\n" in (ROOT / "cluster/Dockerfile").read_text()


def test_the_slurm_script_is_shell_and_closed() -> None:
    file = ROOT / "cluster/slurm.sbatch"
    subprocess.run(["bash", "-n", str(file)], check=True, timeout=10)
    text = file.read_text()
    assert "RAY_AUTH_MODE=token" in text
    assert "--dashboard-host=127.0.0.1" in text


def test_a_job_has_time_to_save_when_it_is_stopped() -> None:
    environment = yaml.safe_load((ROOT / "cluster/job.yaml").read_text())
    assert int(environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 600


@pytest.mark.parametrize(("file", "spot"), [("cluster.yaml", "MarketType: spot"), ("cluster/gcp.yaml", "SPOT")])
def test_cloud_workers_are_spot_nodes_that_come_and_go_with_the_locks_environment(file: str, spot: str) -> None:
    text = (ROOT / file).read_text()
    config = yaml.safe_load(text)
    worker = config["available_node_types"]["gpu_worker"]
    assert spot in text
    assert 0 < worker["min_workers"] < worker["max_workers"] <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 30
    assert "cd ~/addiffusion && uv sync --locked --no-dev --all-extras" in config["setup_commands"]
    mounted = {
        option.split()[1].split(":")[1] for option in config["docker"]["run_options"] if option.startswith("-v ")
    }
    assert mounted == {"/home/ray/.cache", "/home/ray/runs"}, "models and runs outlive the container"
