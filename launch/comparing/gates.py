"""`addiffusion gate`: where the figures of each gate come from."""

from __future__ import annotations

import gc
import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.config import Config
from addiffusion.devices import resolve_device
from addiffusion.errors import RunFolderError
from addiffusion.memory import machine_bytes
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Prompt, Ticket
from addiffusion.scorers.families import load_scoring
from evaluation.comparison.folder import SUMMARY
from evaluation.comparison.gates import Gate, equal_quality_gate, few_step_gate, memory_gate, training_gate
from evaluation.tables import Table
from launch.comparing.evaluate import EvaluateOrder, evaluate
from launch.configuration.files import load_config
from launch.runtime.components import observation_width, unpaid
from launch.runtime.console import Stage
from launch.training.preflight import prepare
from launch.training.run_folder import RunFolder
from launch.training.train import run as run_training
from rollout_workers.worker import Worker

_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOrder:
    """Which gate, and on what."""

    gate: str
    folder: Path | None = None
    """g1: a run; g2, g3: a comparison. None: train, or evaluate the shipped policy, first."""
    overrides: tuple[str, ...] = ()
    longest_s: float = 60.0
    """g1: longest iteration."""
    limit: int = 100
    """g2, g3 without a folder: prompts to compare on."""


def check_gate(order: GateOrder, console: Console) -> Gate:
    """Measure a gate's criteria.

    Raises:
        UsageError: the folder is none, or too short.
    """
    if order.gate == "g0":
        with Stage(console, "measuring memory"):
            return audit_memory(load_config([], order.overrides))
    if order.gate == "g1":
        return training_gate(_iterations(order, console), longest_s=order.longest_s)
    summary = _comparison(order, console)
    return few_step_gate(summary) if order.gate == "g2" else equal_quality_gate(summary)


def gate_table(gate: Gate) -> Table:
    """A line per criterion."""
    table = Table(title=f"{gate.name}: {gate.title}", title_style="bold", header_style="bold")
    for name in ("criterion", "figure", ""):
        table.add_column(name)
    for one in gate.criteria:
        table.add_row(one.name, one.figure, "[green]passed[/]" if one.passed else "[red]failed[/]")
    return table


def audit_memory(config: Config) -> Gate:
    """Load and use, one after the other, what a worker with its own scorers holds; a full batch at each.

    On a GPU its peak of allocated memory counts, else the peak of this process.
    """
    device = resolve_device(config.backbone.device, key="backbone.device")
    config = unpaid(config)
    peaks = {"interpreter and libraries": _peak(device)}
    scoring = load_scoring(config.scorers)
    peaks["scorers"] = _peak(device)
    backbone = load_backbone(config.backbone)
    peaks["diffusion model"] = _peak(device)
    width = observation_width(config, scoring)
    policy = PolicyNetwork(width, config.policy.hidden)
    worker = Worker(config, policy=policy, backbone=lambda: backbone, scoring=lambda: scoring)
    worker.set_weights({name: tensor.numpy() for name, tensor in policy.state_dict().items()}, 0)
    peaks["policy"] = _peak(device)
    short = config.sampler.model_copy(update={"num_steps": config.sampler.warmup_steps + 2})
    worker.collect(_tickets(config, Action.CONTINUE), sampler=short)
    peaks[f"a batch of {config.rollout.slots} through network and decoder"] = _peak(device)
    worker.collect(_tickets(config, Action.REFINE), sampler=short)
    peaks["refine, with attention maps"] = _peak(device)
    worker.collect(_tickets(config, None), sampler=short)
    peaks["decisions, with decoded and scored images"] = _peak(device)
    gc.collect()
    return memory_gate(peaks, _capacity(device))


def _tickets(config: Config, forced: Action | None) -> list[Ticket]:
    return [
        Ticket(
            ticket_id=number,
            prompt=Prompt(prompt_id=number, text="a red circle", tier=0),
            seed=number,
            action_seed=number,
            c_nfe=config.reward.c_nfe,
            forced=forced,
        )
        for number in range(config.rollout.slots)
    ]


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB


def _capacity(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / _GB
    return machine_bytes() / _GB


def _iterations(order: GateOrder, console: Console) -> list[dict[str, float | None]]:
    if order.folder is not None:
        return RunFolder.open(order.folder)[0].metrics()
    plan = prepare([], ["ppo.iterations=100", *order.overrides])
    run_training(plan, console=console)
    return RunFolder(plan.path).metrics()


def _comparison(order: GateOrder, console: Console) -> dict[str, Any]:
    if order.folder is None:
        wanted = EvaluateOrder(limit=order.limit, samplers=("ddim-20", "ddim-50"), stops=0, best_of=0, converged=())
        return evaluate(wanted, overrides=order.overrides, console=console).summary
    file = order.folder / SUMMARY
    if not file.is_file():
        raise RunFolderError(
            f"{order.folder} holds no finished comparison: make one with `addiffusion evaluate --out {order.folder}`.",
            path=str(order.folder),
        )
    return json.loads(file.read_text(encoding="utf-8"))
