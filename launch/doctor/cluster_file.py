"""What a cluster's yaml has to promise before anybody starts it: versions, GPU, bind addresses, token, narrow ssh."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from addiffusion.configuration.yaml import read_yaml
from addiffusion.errors import ClusterError, ConfigError
from launch.runtime.token import is_loopback

Tree = Mapping[str, Any]
ANYWHERE = frozenset({"0.0.0.0/0", "::/0"})


def load_cluster_file(file: Path) -> dict[str, Any]:
    """The file as Ray's cluster launcher understands it, with its defaults.

    Raises:
        ClusterError: it is missing, no YAML, or does not follow Ray's schema.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config  # noqa: PLC0415 - imports Ray

    try:
        config = prepare_config(read_yaml(file, what="cluster file"))
        validate_config(config)
    except ConfigError as error:
        raise ClusterError(error.message, file=str(file)) from error
    except (Exception, SystemExit) as error:  # Ray and jsonschema raise whatever they like
        raise ClusterError(
            f"cluster file {file} does not follow the schema of Ray {version('ray')}: {_one_line(error)}.",
            file=str(file),
        ) from error
    return config


def problems(file: Path) -> list[str]:
    """Whole sentences on what would go wrong with a cluster of ``file``; empty if nothing is known to.

    Raises:
        ClusterError: see ``load_cluster_file``.
    """
    config = load_cluster_file(file)
    return [*_version(config), *_gpu(config), *_binding(config), *_token(config), *_ssh(config)]


def _version(config: Tree) -> Iterator[str]:
    image = (config.get("docker") or {}).get("image")
    wanted = version("ray")
    if image and not re.search(rf":{re.escape(wanted)}-py3\d+(-|$)", image):
        yield f"docker.image={image} must carry Ray {wanted}, which uv.lock has: use rayproject/ray:{wanted}-py311-gpu."


def _gpu(config: Tree) -> Iterator[str]:
    types: Tree = config["available_node_types"]
    if config["provider"]["type"] == "local" or any(kind["resources"].get("GPU", 0) > 0 for kind in types.values()):
        return
    names = ", ".join(types)
    yield (
        f"no node type ({names}) has a GPU, so rollout.gpus_per_worker and scorers.gpus would wait forever: give one "
        "`resources: {GPU: 1}` and an instance that has it, or leave both keys at 0."
    )


def _binding(config: Tree) -> Iterator[str]:
    for command in config["head_start_ray_commands"]:
        if "ray start" not in command:
            continue
        host = re.search(r"--dashboard-host[= ](\S+)", command)
        if host is None or not is_loopback(host.group(1)):
            yield (
                "head_start_ray_commands must start Ray with --dashboard-host=127.0.0.1: the job API runs whatever it "
                "is sent; `ray dashboard` tunnels to it."
            )


def _token(config: Tree) -> Iterator[str]:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        if any("ray start" in command and "RAY_AUTH_MODE=token" not in command for command in config[key]):
            yield f"{key} must start Ray with RAY_AUTH_MODE=token, or the cluster takes work from anybody."
    if not any(remote.endswith(".ray/auth_token") for remote in config["file_mounts"]):
        yield 'file_mounts must give every node the token: "~/.ray/auth_token": "~/.ray/auth_token".'


def _ssh(config: Tree) -> Iterator[str]:
    group = config["provider"].get("security_group") or {}
    if config["provider"]["type"] == "aws" and not group.get("IpPermissions"):
        yield "provider.security_group.IpPermissions is missing: Ray would open ssh to the whole internet."
    for rule in group.get("IpPermissions", []):
        ranges = {
            entry.get("CidrIp", entry.get("CidrIpv6"))
            for key in ("IpRanges", "Ipv6Ranges")
            for entry in rule.get(key, [])
        }
        if ranges & ANYWHERE or (rule.get("FromPort"), rule.get("ToPort")) != (22, 22):
            yield f"security group rule {json.dumps(rule)} opens more than ssh from your own address."


def _one_line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "message", None) or error).split()).rstrip(".")
