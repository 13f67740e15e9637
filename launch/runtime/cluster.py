"""Ray on this machine or on a running cluster: started, checked and stopped. `ray` is imported nowhere before."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from addiffusion.config import ClusterSection, Config
from addiffusion.errors import ClusterError
from launch.runtime.logging_setup import RayReports, muted_stderr, ray_reports
from launch.runtime.ray_connect import refuse_silence, refused_token, told, unreachable
from launch.runtime.token import is_loopback, secure

NAMESPACE = "addiffusion"
DRIVER_CPUS = 0.5
"""Share of the process that runs learner and bookkeeping."""

_ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else a driver started by `uv run` copies the project for each worker
    "RAY_raylet_start_wait_time_s": "180",  # busy machines need longer than the default
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # actors without a GPU keep their environment as it is
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the machine
}
_ATTEMPTS = 2
_TAIL_LINES = 3


def prepare_environment() -> None:
    """Set what Ray reads when it is imported; what the user has set stays."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def needed_cpus(config: Config) -> float:
    """CPUs that the actors and this process reserve."""
    scorers = config.scorers.replicas * config.scorers.cpus
    return config.rollout.workers * config.rollout.cpus_per_worker + scorers + config.ppo.learners + DRIVER_CPUS


def usable_cpus() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_resources(config: Config, *, cpus: float, gpus: float, where: str) -> None:
    """Refuse a configuration whose actors would wait forever for their share.

    Args:
        config: of the run; its sections say what each actor reserves.
        cpus: CPUs there are.
        gpus: GPUs there are.
        where: whose they are, in words.

    Raises:
        ClusterError: too few CPUs or GPUs; the message names the sum and the keys to change.
    """
    rollout, scorers, needed = config.rollout, config.scorers, needed_cpus(config)
    service = "the reward service" if scorers.replicas == 1 else f"{scorers.replicas} replicas of the reward service"
    if needed > cpus:
        raise ClusterError(
            f"{rollout.workers} rollout workers with {rollout.cpus_per_worker:g} CPUs each, {service} "
            f"({scorers.cpus:g}) and the driver ({DRIVER_CPUS:g}) need {needed:g} CPUs, but {where} has "
            f"{cpus:g}: lower rollout.workers, rollout.cpus_per_worker or scorers.cpus, or set cluster.mode=serial.",
            needed=needed,
            present=cpus,
        )
    learner_gpus = max(config.ppo.learners, 1) * config.ppo.gpus_per_learner
    needed_gpus = rollout.workers * rollout.gpus_per_worker + scorers.replicas * scorers.gpus + learner_gpus
    if needed_gpus > gpus:
        raise ClusterError(
            f"{rollout.workers} rollout workers with {rollout.gpus_per_worker:g} GPUs each and {service} "
            f"({scorers.gpus:g}) need {needed_gpus:g} GPUs, but {where} has {gpus:g}: lower rollout.workers, "
            "rollout.gpus_per_worker or scorers.gpus, or (the learner counts too) ppo.gpus_per_learner.",
            needed=needed_gpus,
            present=gpus,
        )


@contextmanager
def ray_running(config: Config) -> Iterator[RayReports]:
    """Ray for the length of the block: started on this machine, or joined where ``cluster.address`` says so.

    Yields what takes its reports.

    Raises:
        ClusterError: Ray can't be started or joined, has another version, or is too small.
    """
    if config.cluster.address == "local":
        secure(config.cluster.bind)
    with _connected(config) as reports:
        _check_offer(config)
        yield reports


@contextmanager
def ray_joined(address: str) -> Iterator[None]:
    """A running cluster for the length of the block; nothing is started on it.

    Raises:
        ClusterError: there is none at ``address``, or it runs another version.
    """
    if address == "local":
        raise ClusterError("address=local would start a cluster of its own: give auto, or host:port of a running one.")
    with _connected(Config(cluster=ClusterSection(address=address))):
        yield


@contextmanager
def _connected(config: Config) -> Iterator[RayReports]:
    prepare_environment()
    import ray  # noqa: PLC0415 - only after its environment is set

    with ray_reports() as reports:
        _connect(config)
        try:
            yield reports
        finally:
            ray.shutdown()


def _check_offer(config: Config) -> None:
    """Compare the configuration with what the cluster has, or, where its autoscaler brings nodes, could have."""
    from launch.runtime.placement import ROLLOUT, running_offer  # noqa: PLC0415 - imports the learner, and with it Ray

    offer = running_offer()
    where = "this machine" if config.cluster.address == "local" else "the cluster"
    if offer.possible:
        where += " with all nodes its autoscaler may start"
    if offer.has(ROLLOUT):  # workers without room wait for a node: one has to fit
        first = config.rollout.model_copy(update={"workers": 1, "max_workers": None})
        config = config.model_copy(update={"rollout": first})
    check_resources(config, cpus=offer.most("CPU"), gpus=offer.most("GPU"), where=where)


def _connect(config: Config) -> None:
    failure: Exception | None = None
    local = config.cluster.address == "local"
    if not local:
        refuse_silence(config.cluster.address)
    for _ in range(_ATTEMPTS if local else 1):
        try:
            with nullcontext() if local else muted_stderr(show_failure=False):  # Ray repeats what is said here once
                return _init(config)
        except Exception as error:
            failure = error
    assert failure is not None
    raise connection_error(config.cluster.address, failure) from failure


def _init(config: Config) -> None:
    import ray  # noqa: PLC0415 - see ray_running
    from ray._private import ray_constants  # noqa: PLC0415 - see ray_running

    local = config.cluster.address == "local"
    if local:  # else Ray replaces loopback by the address of a network card, and then listens on all of them
        ray_constants.ENABLE_RAY_CLUSTER = not is_loopback(config.cluster.bind)
    try:
        ray.init(
            address=config.cluster.address,
            namespace=NAMESPACE,
            num_cpus=usable_cpus() if local else None,
            include_dashboard=True if local else None,
            dashboard_host="127.0.0.1",
            _node_ip_address=config.cluster.bind if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except BaseException:
        ray.shutdown()
        raise


def connection_error(address: str, failure: Exception) -> ClusterError:
    """What ``ray.init`` meant, in one sentence with a way out."""
    text, told_all = " ".join(str(failure).split()), told(failure)
    versions = re.findall(r"Ray: (\S+)", told_all)
    if len(versions) >= 2 and "Version mismatch" in told_all:
        pythons = re.findall(r"Python: (\S+)", told_all)
        return ClusterError(
            f"the cluster at {address} runs Ray {versions[0]} on Python {pythons[0]}, this environment has Ray "
            f"{versions[1]} on Python {pythons[1]}: install the same versions on both, or set cluster.address=local.",
            cluster=versions[0],
            here=versions[1],
        )
    if re.search(r"authenticat", told_all, re.IGNORECASE):
        return refused_token(address)
    if "AF_UNIX path length" in told_all:
        return ClusterError(
            f"Ray can't work on this machine, because the path of its temporary folder is too long for a socket "
            f"({temporary_folder()}): set RAY_TMPDIR to a short path, such as /tmp.",
            folder=str(temporary_folder()),
        )
    if address == "local":
        cause = raylet_errors() or text
        return ClusterError(
            f"Ray did not start on this machine in {_ATTEMPTS} attempts ({cause}): stop other heavy work and try "
            "again, or set cluster.mode=serial."
        )
    return unreachable(address, text)


def temporary_folder() -> Path:
    """Where Ray puts its sessions, sockets among them."""
    return Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray"


def raylet_errors(sessions: Path | None = None) -> str:
    """The last lines the latest session's raylet wrote to its error log; empty when it wrote none."""
    log = (sessions or temporary_folder()) / "session_latest" / "logs" / "raylet.err"
    if not log.is_file():
        return ""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-_TAIL_LINES:])
