"""`addiffusion doctor`: what this machine or cluster can run, and what stands in the way."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from addiffusion.config import Config
from addiffusion.errors import AdDiffusionError
from addiffusion.files import existing_parent
from addiffusion.memory import machine_bytes
from evaluation.tables import Table
from launch.doctor.cluster_file import problems
from launch.doctor.models import GATE_GB, GIB, Part, decode_bytes, needed_bytes, parts_of
from launch.doctor.orders import DoctorOrder
from launch.runtime import token
from launch.runtime.cluster import check_resources, ray_joined, usable_cpus
from launch.runtime.gpus import GpuOffer, shared_out
from launch.runtime.placement import REWARD, ROLLOUT, running_offer
from launch.training.checks import works_here

State = Literal["ok", "warning", "failed"]
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}
_DISK_WARNING_GB = 5.0
_DECODING = "decoding"
SMOKE = (
    "cluster.mode=serial", "rollout.slots=2", "sampler.num_steps=6", "sampler.finish_steps=2",
    "ppo.iterations=1", "ppo.batch_size=2", "prompts.train_count=2", "evaluation.prompt_count=1",
    "evaluation.static_steps=4", "run.film_strips=0",
)  # fmt: skip
"""One iteration of everything, as small as it gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State = "ok"
    detail: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def examine(order: DoctorOrder, config: Config, *, files: Sequence[Path], overrides: Sequence[str]) -> Iterator[Check]:
    """All checks, one after another; a failed one does not keep the others from being made.

    Args:
        order: what else to look at: a cluster file, a tiny run.
        config: of the run to come, resolved.
        files: YAML that ``config`` was made of, for the tiny run.
        overrides: ``key=value`` that ``config`` was made of, for the tiny run.
    """
    yield from (_versions(), _bytecode(), _gpus(), _memory(), _disk(config), _token())
    if order.cluster_file is not None:
        yield _attempt("cluster file", lambda: _cluster_file(order.cluster_file))
    yield _attempt("cluster", lambda: _cluster(config))
    yield from _models(config)
    if order.smoke:
        yield _attempt("smoke", lambda: _smoke(files, overrides))


def failed(checks: Sequence[Check]) -> bool:
    """Whether anything stands in the way."""
    return any(check.state == "failed" for check in checks)


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The same for programs."""
    rows = [{"name": c.name, "state": c.state, "detail": c.detail, **c.facts} for c in checks]
    return {"ok": not failed(checks), "checks": rows}


def table(checks: Sequence[Check]) -> Table:
    """The same for people."""
    shown = Table(box=None, show_header=False, padding=(0, 1))
    for check in checks:
        shown.add_row(f"[{_STYLES[check.state]}]{check.state}[/]", check.name, check.detail)
    return shown


def _attempt(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except AdDiffusionError as error:
        return Check(name=name, state="failed", detail=error.message)


def _versions() -> Check:
    names = ("addiffusion", "ray", "torch", "diffusers", "transformers")
    found = {name: version(name) for name in names}
    return Check(name="versions", detail=", ".join(f"{key} {value}" for key, value in found.items()), facts=found)


def _bytecode() -> Check:
    """Whether processes find their libraries compiled; a container's image often keeps Python from writing that."""
    if Path(cache_from_source(torch.__file__)).exists():
        return Check(name="bytecode", detail="the libraries are compiled")
    if not sys.dont_write_bytecode:
        return Check(name="bytecode", detail="none yet; the first process writes it")
    detail = (
        "PYTHONDONTWRITEBYTECODE is set: every process of a run compiles what it imports, some 15 s of CPU each; unset "
        "it, or run `python -m compileall -q` on this environment once"
    )
    return Check(name="bytecode", state="warning", detail=detail)


def _gpus() -> Check:
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    found = [{"name": device.name, "memory_gb": round(device.total_memory / GIB, 1)} for device in devices]
    shown = ", ".join(f"{gpu['name']} with {gpu['memory_gb']} GB" for gpu in found)
    return Check(name="GPUs", detail=shown or "none: models run on the CPU", facts={"gpus": found})


def _memory() -> Check:
    size = machine_bytes() / GIB
    cpus = usable_cpus()
    return Check(name="CPUs", detail=f"{cpus}, {size:.0f} GB of memory", facts={"cpus": cpus, "memory_gb": size})


def _disk(config: Config) -> Check:
    home = existing_parent((config.run.dir or Path("runs")) / "new")
    free = shutil.disk_usage(home).free / GIB
    short = free < _DISK_WARNING_GB
    advice = ": checkpoints may not fit, give run.dir a folder with more room" if short else ""
    return Check(
        name="disk",
        state="warning" if short else "ok",
        detail=f"{free:.0f} GB free for runs in {home}{advice}",
        facts={"free_gb": free},
    )


def _token() -> Check:
    source, file = token.token_source(), token.token_file()
    if source == "off":
        detail = f"{token.MODE} switches it off: whoever reaches Ray's ports may run code; unset it"
        return Check(name="token", state="warning", detail=detail)
    if source == "missing":
        return Check(name="token", detail=f"none yet; it is made in {file} when Ray is first started here")
    if source == "file" and token.readable_by_others(file):
        detail = f"{file} can be read by others: chmod 600 {file}"
        return Check(name="token", state="warning", detail=detail)
    return Check(name="token", detail=f"on, from {file if source == 'file' else 'the environment'}")


def _cluster_file(file: Path | None) -> Check:
    assert file is not None
    found = problems(file)
    return Check(
        name="cluster file",
        state="failed" if found else "ok",
        detail=" ".join(found) or f"{file} follows Ray's schema, is closed to others, and has GPUs",
    )


def _cluster(config: Config) -> Check:
    if config.cluster.mode == "serial":
        return Check(name="cluster", detail="not used: cluster.mode=serial")
    if config.cluster.address == "local":
        gpus, where = torch.cuda.device_count(), "this machine"
        check_resources(
            shared_out(config, GpuOffer(total=gpus), where=where), cpus=usable_cpus(), gpus=gpus, where=where
        )
        return Check(name="cluster", detail="this machine; cluster.address=auto looks at a running one")
    with ray_joined(config.cluster.address):
        offer = running_offer()
        shown = {name: offer.present.get(name, 0.0) for name in ("CPU", "GPU", ROLLOUT, REWARD)}
    detail = ", ".join(f"{value:g} {name}" for name, value in shown.items())
    return Check(name="cluster", detail=f"{config.cluster.address} offers {detail}", facts=shown)


def _models(config: Config) -> Iterator[Check]:
    """Each model's files, and the memory that all take."""
    try:
        parts = parts_of(config)
        yield from map(_weights, parts)
        yield _audit(config, parts)
    except AdDiffusionError as error:
        yield Check(name="models", state="failed", detail=error.message)


def _weights(part: Part) -> Check:
    facts = {"path": str(part.path or ""), "bytes": part.bytes_on_disk, "parameters": part.parameters}
    if part.path is None:
        detail = f"not on this machine; {part.source} is fetched from the hub when a run starts"
        return Check(name=part.name, state="warning" if part.from_hub else "failed", detail=detail, facts=facts)
    return Check(name=part.name, detail=f"{part.path}, {part.bytes_on_disk / 1e6:.1f} MB", facts=facts)


def _audit(config: Config, parts: Sequence[Part]) -> Check:
    """Denoiser and all scorers on one device, the hardest placement; without a GPU, all roles in this machine."""
    backbone, *scorers = parts
    sizes = {part.name: needed_bytes(part) / GIB for part in parts} | {_DECODING: decode_bytes(config) / GIB}
    workers, replicas, limit, where = _room(config)
    drawing, scoring = sizes[backbone.name] + sizes[_DECODING], sum(sizes[part.name] for part in scorers)
    needed = workers * drawing + replicas * scoring
    return Check(
        name="memory",
        state="ok" if needed <= limit else "failed",
        detail=f"{workers} x denoiser and {replicas} x scorers need about {needed:.1f} GB, {where} {limit:.0f} GB",
        facts={"needed_gb": needed, "limit_gb": limit, "parts": sizes},
    )


def _room(config: Config) -> tuple[int, int, float, str]:
    """Rollout workers and reward services on one device, its memory in GB, and which it is."""
    count = torch.cuda.device_count()
    if count:
        smallest = min(torch.cuda.get_device_properties(index).total_memory for index in range(count))
        return 1, 1, smallest / GIB, "the smallest GPU here has"
    if not works_here(config):
        return 1, 1, GATE_GB, "the limit is"
    size, where = machine_bytes() / GIB, "this machine has"
    if config.cluster.mode == "serial":
        return 1, 1, size, where
    return config.rollout.workers, config.scorers.replicas, size, where


def _smoke(files: Sequence[Path], overrides: Sequence[str]) -> Check:
    from launch.training.preflight import prepare  # noqa: PLC0415 - loads the models' libraries
    from launch.training.train import run  # noqa: PLC0415

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="addiffusion-doctor-") as folder:
        plan = prepare(files, [*overrides, *SMOKE, f"run.dir={folder}/run"])
        outcome = run(plan, console=Console(file=io.StringIO()))
    seconds = time.perf_counter() - start
    if outcome.result is None:
        return Check(name="smoke", state="failed", detail="the tiny run was interrupted")
    detail = f"a tiny run from prompts to held-out table took {seconds:.0f} s"
    return Check(name="smoke", detail=detail, facts={"seconds": seconds})
