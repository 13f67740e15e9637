"""`addiffusion gate`: where the figures of each gate come from."""

from __future__ import annotations

import gc
import json
import resource
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.devices import resolve_device
from addiffusion.errors import RunFolderError
from addiffusion.memory import machine_bytes
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Prompt, PromptId, Ticket, TicketId
from addiffusion.scorers.factory import load_scoring
from evaluation.comparison.folder import SUMMARY
from evaluation.comparison.gates import Gate, equal_quality_gate, few_step_gate, memory_gate, training_gate
from evaluation.tables import Table
from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.evaluate import evaluate
from launch.comparing.orders import GateOrder
from launch.runtime.components import observation_width, unpaid
from launch.runtime.console import Stage
from launch.training.preflight import prepare
from launch.training.run_folder import RunFolder
from launch.training.train import run as run_training
from rollout_workers.worker import Worker

_GB = 1e9
_AUDITED = 7
"""Measurements of ``audit_memory``."""


def check_gate(order: GateOrder, *, overrides: Sequence[str] = (), console: Console) -> Gate:
    """Measure a gate's criteria.

    Raises:
        UsageError: the folder is none, or too short.
    """
    if order.name == "g0":
        with Stage(console, "measurements of memory", _AUDITED, headline="") as stage:
            return audit_memory(load_config([], overrides), advance=stage.advance)
    if order.name == "g1":
        return training_gate(_iterations(order, overrides, console), longest_s=order.longest_s)
    summary = _comparison(order, overrides, console)
    return few_step_gate(summary) if order.name == "g2" else equal_quality_gate(summary)


def gate_table(gate: Gate) -> Table:
    """A line per criterion."""
    table = Table(title=f"{gate.name}: {gate.title}", title_style="bold", header_style="bold")
    for name in ("criterion", "figure", ""):
        table.add_column(name)
    for one in gate.criteria:
        table.add_row(one.name, one.figure, "[green]passed[/]" if one.passed else "[red]failed[/]")
    return table


def audit_memory(config: Config, *, advance: Callable[[], None] = lambda: None) -> Gate:
    """Load and use, one after the other, what a worker with its own scorers holds; a full batch at each.

    On a GPU its peak of allocated memory counts, else the peak of this process. ``advance`` is called after each of
    ``_AUDITED`` measurements.
    """
    device = resolve_device(config.backbone.device, key="backbone.device")
    config = unpaid(config)
    peaks: dict[str, float] = {}

    def note(name: str) -> None:
        peaks[name] = _peak(device)
        advance()

    note("interpreter and libraries")
    scoring = load_scoring(config.scorers)
    note("scorers")
    backbone = load_backbone(config.backbone)
    note("diffusion model")
    width = observation_width(config, scoring)
    policy = PolicyNetwork(width, config.policy.hidden, actions=config.policy.actions)
    worker = Worker(config, policy=policy, backbone=lambda: backbone, scoring=lambda: scoring)
    worker.set_weights({name: tensor.numpy() for name, tensor in policy.state_dict().items()}, 0)
    note("policy")
    short = config.sampler.model_copy(update={"num_steps": config.sampler.warmup_steps + 2})
    worker.collect(_tickets(config, Action.CONTINUE), sampler=short)
    note(f"a batch of {config.rollout.slots} through network and decoder")
    worker.collect(_tickets(config, Action.REFINE), sampler=short)
    note("refine, with attention maps")
    worker.collect(_tickets(config, None), sampler=short)
    note("decisions, with decoded and scored images")
    gc.collect()
    return memory_gate(peaks, _capacity(device))


def _tickets(config: Config, forced: Action | None) -> list[Ticket]:
    return [
        Ticket(
            ticket_id=TicketId(number),
            prompt=Prompt(prompt_id=PromptId(number), text="a red circle", tier=0),
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


def _iterations(order: GateOrder, overrides: Sequence[str], console: Console) -> list[dict[str, float | None]]:
    if order.folder is not None:
        return RunFolder.open(order.folder)[0].metrics()
    plan = prepare([], ["ppo.iterations=100", *overrides])
    run_training(plan, console=console)
    return RunFolder(plan.path).metrics()


def _comparison(order: GateOrder, overrides: Sequence[str], console: Console) -> dict[str, Any]:
    if order.folder is None:
        wanted = EvaluateOrder(limit=order.limit, samplers=("ddim-20", "ddim-50"), stops=0, best_of=0)
        return evaluate(wanted, overrides=overrides, console=console, converged_at=()).summary
    file = order.folder / SUMMARY
    if not file.is_file():
        raise RunFolderError(
            f"{order.folder} holds no finished comparison: make one with `addiffusion evaluate --out {order.folder}`.",
            path=str(order.folder),
        )
    return json.loads(file.read_text(encoding="utf-8"))
