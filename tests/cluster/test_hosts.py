"""Three hosts, brought up by `ray up` with the on-premises yaml: a training over them, one of them cut off and back.

It ends in the weights that the same training has in one process, to the last bit.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.head import BIN, ROOT, Head, free_ports, started
from tests.cluster.hosts import PREFIX, Host, missing_requirements, simulated_hosts
from tests.cluster.training import BATCH, ENDLESS, serial_state, train_command
from tests.cluster.waiting import wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing_requirements()), reason=f"needs {', '.join(missing_requirements())}"),
    pytest.mark.timeout(900),
]
UP_S, JOB_S, LOSS_S, BACK_S, DOWN_S = 300.0, 240.0, 180.0, 240.0, 120.0
FEW = ("prompts.train_count=2", "evaluation.prompt_count=1", "run.film_strips=0")


class Log:
    """Says how long each stage took."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        print(f"[{now - self._start:6.1f} s, {now - self._last:5.1f} s for] {what}", file=sys.stderr, flush=True)
        self._last = now


def cluster_yaml(hosts: list[Host], name: str, token: Path) -> dict[str, Any]:
    """The shipped on-premises file for these hosts.

    Only the environment differs: no simulated host reaches a package index, so it takes this checkout's.
    """
    config = yaml.safe_load((ROOT / "cluster/on_premises.yaml").read_text())
    first, *others = [host.address for host in hosts]
    config["cluster_name"] = name
    config["provider"] |= {"head_ip": first, "worker_ips": others}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts[0].key)}
    config["file_mounts"]["~/.ray/auth_token"] = str(token)
    environment = f"ln -sfn {BIN.parent} ~/addiffusion/.venv"
    config["setup_commands"] = [
        environment if "uv sync" in command else command
        for command in config["setup_commands"]
        if "pip install" not in command
    ]
    return config


@contextmanager
def cluster_up(hosts: list[Host], folder: Path, log: Log) -> Iterator[Head]:
    """`ray up`, the dashboard's tunnel, `ray down`."""
    name = f"addiffusion-test-{os.getpid()}"
    token, file = folder / "token", folder / "cluster.yaml"
    token.write_text("s" * 64)
    token.chmod(0o600)
    file.write_text(yaml.safe_dump(cluster_yaml(hosts, name, token)))
    (port,) = free_ports(1)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    head = Head(
        folder=folder,
        gcs_port=6379,
        dashboard=f"http://127.0.0.1:{port}",
        environment=kept
        | {
            "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_UP_enable_autoscaler_v2": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )
    with ExitStack() as stack:
        stack.callback(head.ray, "down", "-y", str(file), timeout_s=DOWN_S)
        head.ray("up", "-y", "--no-config-cache", str(file), timeout_s=UP_S)
        log("ray up has started the head")
        tunnel = [str(BIN / "ray"), "dashboard", str(file), "--port", str(port)]
        stack.enter_context(started(tunnel, head.environment, folder / "tunnel.log"))
        wait_for(
            "three nodes",
            lambda: len(alive(head)) == len(hosts),
            timeout_s=UP_S,
            give_up=lambda: hosts[0].run("tail -n 40 /tmp/ray/session_latest/logs/monitor.* || true"),
        )
        log("all nodes have joined")
        yield head
        log("the training is over")
    log("ray down")


def alive(head: Head) -> list[str]:
    """Addresses of the nodes that are up."""
    try:
        nodes = head.get("/nodes?view=summary")["data"]["summary"]
    except (urllib.error.URLError, ConnectionError):
        return []
    return [node["ip"] for node in nodes if node["raylet"].get("state") == "ALIVE"]


def metric_rows(hosts: list[Host], run: str) -> list[dict[str, Any]]:
    text = hosts[0].run(f"cat ~/{run}/metrics.jsonl 2>/dev/null || true")
    return [json.loads(line) for line in text.splitlines()]


def row_where(head: Head, hosts: list[Host], what: str, timeout_s: float, **wanted: float) -> dict[str, Any]:
    """The first iteration from now on whose numbers reach ``wanted``."""
    seen = len(metric_rows(hosts, "runs/long"))

    def look() -> dict[str, Any] | None:
        head.check_running("long")
        fresh = metric_rows(hosts, "runs/long")[seen:]
        return next((row for row in fresh if all(row[key] >= least for key, least in wanted.items())), None)

    return wait_for(what, look, timeout_s=timeout_s, give_up=lambda: head.logs("long")[-3000:])


def test_a_training_survives_a_host_that_is_cut_off(tmp_path: Path) -> None:
    log = Log()
    with simulated_hosts(3) as hosts:
        log("hosts are up")
        with cluster_up(hosts, tmp_path, log) as head:
            head.submit("short", *train_command("runs/short", 1, *FEW))
            assert head.ended("short", timeout_s=JOB_S) == "SUCCEEDED", head.logs("short")[-3000:]
            assert [row["workers_up"] for row in metric_rows(hosts, "runs/short")] == [2]
            assert "held-out prompts" in head.logs("short")
            log("a training over three hosts has finished")

            head.submit("long", *train_command("runs/long", ENDLESS, *FEW))
            row_where(head, hosts, "an iteration of two workers", JOB_S, workers_up=2)
            assert workers_by_host(head) == {host.address: 1 for host in hosts[1:]}
            hosts[2].cut_off()
            log("two workers train; now one host is cut off")
            lost = row_where(head, hosts, "the loss of a worker", LOSS_S, workers_lost=1, tickets_moved=1)
            assert lost["episodes_dropped"] == 0
            row_where(head, hosts, "an iteration without it", JOB_S, workers_lost=1)
            log("training went on without it, its tickets went to the other")
            hosts[2].plug_in()
            row_where(head, hosts, "the worker's return", BACK_S, workers_lost=1, workers_up=2)
            wait_for(
                "the worker on its host",
                lambda: workers_by_host(head) == {host.address: 1 for host in hosts[1:]},
                timeout_s=BACK_S,
            )
            log("the host is back and has its worker again")
            head.ray("job", "stop", "--address", head.dashboard, "long")
            assert head.ended("long", timeout_s=JOB_S) == "STOPPED"
            assert "go on with" in head.logs("long")
            kept = last_state(hosts, "runs/long")
            log(f"the training has stopped and saved after {kept['weight_version']} iterations")
        with ThreadPoolExecutor() as pool:  # as the yaml's header says, `ray down` leaves the workers' Ray running
            list(pool.map(lambda host: host.run(f"{BIN}/ray stop || true"), hosts))
        assert {host.name: host.ray_processes() for host in hosts} == {host.name: [] for host in hosts}
        log("no Ray process is left on any host")
    twin = serial_state(tmp_path / "twin", kept["weight_version"], *FEW)
    assert kept["ledger"]["trained_count"] == twin["ledger"]["trained_count"] == kept["weight_version"] * BATCH
    for name in ("policy.safetensors", "value.safetensors"):
        assert kept["sha256"][name] == twin["sha256"][name], name
    log("its weights are those of the same training in one process")
    for place in ("/run/netns", "/sys/class/net"):
        assert not list(Path(place).glob(f"*{PREFIX}*")), place
    assert PREFIX not in Path("/proc/mounts").read_text()
    log("nothing of the hosts is left")


def last_state(hosts: list[Host], run: str) -> dict[str, Any]:
    """What the newest checkpoint of a run on the head says of itself."""
    return json.loads(hosts[0].run(f"cat $(ls -d ~/{run}/checkpoints/iteration-* | tail -n 1)/state.json"))


def workers_by_host(head: Head) -> dict[str, int]:
    """How many living rollout workers each host has."""
    answer = head.get("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    nodes = {node["raylet"]["nodeId"]: node["ip"] for node in head.get("/nodes?view=summary")["data"]["summary"]}
    found: dict[str, int] = {}
    for actor in answer:
        if actor["class_name"] == "DiffusionRunner" and actor["state"] == "ALIVE":
            address = nodes.get(actor["node_id"], "a node the dashboard has not listed yet")
            found[address] = found.get(address, 0) + 1
    return found
