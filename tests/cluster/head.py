"""A Ray head on this machine as `ray start` makes it: own ports, own folder, own token, ended by its own process id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from tests.cluster.waiting import wait_for

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S, STOP_S = 150.0, 30.0
ATTEMPTS = 2
FINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
"""Statuses a job does not leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A running head."""

    folder: Path
    """Its home folder and everything it writes."""
    gcs_port: int
    dashboard: str
    """URL of dashboard and job API."""
    environment: dict[str, str]
    """For commands that talk to it."""

    def get(self, path: str) -> Any:
        """JSON that the dashboard answers."""
        token = (self.folder / "token").read_text()
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def ray(self, *arguments: str, timeout_s: float = 90.0) -> str:
        """Output of a `ray` command."""
        return self._output("ray", *arguments, timeout_s=timeout_s)

    def serve(self, *arguments: str, timeout_s: float = 90.0) -> str:
        """Output of a `serve` command."""
        return self._output("serve", *arguments, timeout_s=timeout_s)

    def _output(self, program: str, *arguments: str, timeout_s: float) -> str:
        command = [str(BIN / program), *arguments]
        log = self.folder / f"{program}-{arguments[0]}.log"
        with log.open("w+") as output:
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise TimeoutError(f"{command}\n{log.read_text()[-4000:]}") from error
        assert done.returncode == 0, f"{command}\n{log.read_text()[-4000:]}"
        return log.read_text()

    def submit(self, job_id: str, *command: str, metadata: Mapping[str, str] | None = None) -> None:
        """The documented one-liner, without waiting for the job's end."""
        common = ["--address", self.dashboard, "--submission-id", job_id, "--no-wait"]
        common += ["--metadata-json", json.dumps(metadata)] if metadata else []
        options = ["--runtime-env", "cluster/job.yaml", "--working-dir", "."]
        self.ray("job", "submit", *common, *options, "--", *command)

    def job(self, job_id: str) -> dict[str, Any]:
        """State of a job."""
        return self.get(f"/api/jobs/{job_id}")

    def ended(self, job_id: str, *, timeout_s: float) -> str:
        """The final status of a job."""

        def look() -> str | None:
            status = self.job(job_id)["status"]
            return status if status in FINAL else None

        return wait_for(f"the end of {job_id}", look, timeout_s=timeout_s, give_up=lambda: self.logs(job_id)[-3000:])

    def check_running(self, job_id: str) -> None:
        """Fail at once where waiting for the job has become pointless."""
        status = self.job(job_id)["status"]
        assert status not in FINAL, f"{job_id} is {status}: {self.logs(job_id)[-3000:]}"

    def logs(self, job_id: str) -> str:
        """What a job has printed."""
        return self.get(f"/api/jobs/{job_id}/logs")["logs"]


@contextmanager
def running_head(*, num_cpus: int = 4, resources: str = "{}") -> Iterator[Head]:
    """A head for the length of the block; a start that starves beside other work is tried once more."""
    with ExitStack() as stack:
        for attempt in range(1, ATTEMPTS + 1):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adh", ignore_cleanup_errors=True)))
            (folder / "token").write_text("t" * 64)
            (folder / "token").chmod(0o600)
            try:
                head = stack.enter_context(_head(folder, num_cpus, resources))
            except TimeoutError:
                if attempt == ATTEMPTS:
                    raise
            else:
                yield head
                return


@contextmanager
def _head(folder: Path, num_cpus: int, resources: str) -> Iterator[Head]:
    gcs, dashboard, metrics, *others = free_ports(6)
    head = Head(
        folder=folder,
        gcs_port=gcs,
        dashboard=f"http://127.0.0.1:{dashboard}",
        environment=_environment(folder, gcs, dashboard),
    )
    options = [
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        f"--metrics-export-port={metrics}",
        f"--ray-client-server-port={others[0]}",
        f"--dashboard-agent-listen-port={others[1]}",
        f"--dashboard-agent-grpc-port={others[2]}",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--temp-dir={folder / 'ray'}",
        f"--num-cpus={num_cpus}",
        f"--resources={resources}",
        "--object-store-memory=200000000",
    ]
    with started([str(BIN / "ray"), "start", "--head", "--block", *options], head.environment, folder / "head.log"):
        wait_for(
            "a Ray head",
            lambda: head.get("/api/version") and head.get("/nodes?view=summary")["data"]["summary"],
            timeout_s=START_S,
            give_up=lambda: (folder / "head.log").read_text()[-2000:],
        )
        yield head


@contextmanager
def joined_node(head: Head, *, num_cpus: int, resources: str) -> Iterator[None]:
    """A second node of ``head``'s cluster on this machine, for the length of the block."""
    metrics, agent, grpc = free_ports(3)
    options = [
        f"--address=127.0.0.1:{head.gcs_port}",
        f"--metrics-export-port={metrics}",
        f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={grpc}",
        f"--num-cpus={num_cpus}",
        f"--resources={resources}",
        "--object-store-memory=200000000",
    ]
    with started([str(BIN / "ray"), "start", "--block", *options], head.environment, head.folder / "node.log"):
        yield


@contextmanager
def started(
    command: Sequence[str], environment: dict[str, str], log: Path, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, its children included, for the length of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0, cwd=cwd
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(STOP_S)


def _environment(folder: Path, gcs_port: int, dashboard_port: int) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {
        "HOME": str(folder),
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # else each home folder gets its own list of fonts, in 10 s
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_raylet_start_wait_time_s": "180",
        "RAY_worker_niceness": "0",  # as in tests/conftest.py
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": f"127.0.0.1:{gcs_port}",
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard_port}",
    }


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at this moment, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
