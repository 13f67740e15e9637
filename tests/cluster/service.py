"""`serve.yaml` on a head of this machine: deployed, looked at, its replicas killed, shut down."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.head import ROOT, Head, free_ports
from tests.cluster.waiting import wait_for

UP_S, DOWN_S = 400.0, 120.0
NAME = "addiffusion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A deployed application."""

    head: Head
    file: Path
    """The changed `serve.yaml`."""
    address: str
    """Host and port."""

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://{self.address}"

    def details(self) -> dict[str, Any]:
        """What Serve says of the application; empty without one."""
        return self.head.get("/api/serve/applications/")["applications"].get(NAME, {})

    def replicas(self, deployment: str) -> dict[str, int]:
        """Process id of each running replica."""
        found = self.details()["deployments"][deployment]["replicas"]
        return {one["replica_id"]: one["pid"] for one in found if one["state"] == "RUNNING" and one["pid"]}

    def settled(self, engines: int, apis: int) -> bool:
        """Whether so many replicas run, and none beside them."""
        details = self.details()
        assert details.get("status") != "DEPLOY_FAILED", details["message"]
        if details.get("status") != "RUNNING":
            return False
        return (len(self.replicas("Engine")), len(self.replicas("Api"))) == (engines, apis)

    def kill(self, deployment: str, replica_id: str) -> None:
        """End a replica as a machine does that fails."""
        os.kill(self.replicas(deployment)[replica_id], signal.SIGKILL)

    def log(self) -> str:
        """The end of what Serve's processes have said, for messages."""
        files = sorted((self.head.folder / "ray").glob("session_latest/logs/serve/*.log"))
        return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files[-6:])


def stop(service: Service) -> None:
    """End it as `serve.yaml` says: what runs is finished first."""
    head = service.head
    head.serve("deploy", "cluster/serve_nothing.yaml")
    wait_for("the end of the application", lambda: not service.details(), timeout_s=DOWN_S, give_up=service.log)
    head.serve("shutdown", "-y")
    wait_for(
        "the end of Serve",
        lambda: not head.get("/api/serve/applications/")["controller_info"].get("node_id"),
        timeout_s=DOWN_S,
    )


@contextmanager
def deployed(
    head: Head,
    folder: Path,
    *,
    application: Mapping[str, Any] | None = None,
    engines: int = 1,
    apis: int = 1,
) -> Iterator[Service]:
    """The application of `serve.yaml` on a free port, for the length of the block.

    Args:
        head: of the cluster.
        folder: for the changed file.
        application: keys of the application in place of those of the file.
        engines: replicas that draw; 1 leaves the file's own.
        apis: replicas that answer.
    """
    (port,) = free_ports(1)
    config = yaml.safe_load((ROOT / "serve.yaml").read_text())
    config["http_options"]["port"] = port
    (own,) = config["applications"]
    own |= application or {}
    engine, api = own["deployments"]
    engine["autoscaling_config"] |= {"min_replicas": engines, "max_replicas": max(engines, 2)}
    api["num_replicas"] = apis
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    service = Service(head=head, file=file, address=f"127.0.0.1:{port}")
    head.serve("deploy", str(file))
    try:
        wait_for(
            "the application",
            lambda: service.settled(engines, apis),
            timeout_s=UP_S,
            give_up=lambda: str(service.details()),
        )
        yield service
    finally:
        stop(service)
