"""`addiffusion bench engine`: the engine against the bare network and against the ways things are usually done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone
from addiffusion.config import BackboneSection
from addiffusion.memory import keep_freed_memory
from addiffusion.threads import torch_threads
from evaluation.tables import Table
from launch.bench.contestants import (
    REFINE_FRAC,
    BareNetwork,
    BenchSetup,
    Continuous,
    LockStep,
    StockPipeline,
    Timed,
    TimedContestant,
    ratio,
)
from launch.bench.orders import EngineOrder
from launch.bench.rounds import shown_turns
from launch.bench.sets import add_rows, bench_sets
from launch.runtime.console import UNSEEN, Stage

BATCHES: Final = tuple(2**power for power in range(11))
"""Batch sizes the bare network is tried at: up to twice the engine's slots, or until larger ones are no faster."""
_FASTER: Final = 1.02
"""A larger batch counts as faster from so much on; less is the machine's mood."""
_LATE: Final = 2
"""Batches in a row that are no faster, after which no larger one is tried."""
_SET_ROUNDS: Final = 3
"""Most rounds of whole sets, each of which takes long."""
_MATMUL: Final = 8192

ROWS: Final = {
    "bare": "bare network, best batch",
    "bare_same_batch": "bare network, the engine's batch",
    "engine": "engine, continuous batching",
    "lockstep": "lock-step padded batches",
    "pipeline": "stock diffusers pipeline, fixed length",
    "sequential": "one image after the other",
}

SHARES: Final = {
    "overhead_frac": "engine outside the network's layers",
    "attention_frac": "attention computed again for refines",
    "overhead_without_refines_frac": "engine where nothing refines",
}
"""Parts of a tick that are not the network's pass."""


def bench_engine(order: EngineOrder, console: Console = UNSEEN) -> dict[str, Any]:
    """Rates in NFE per second and their ratios, flat, ready for one JSON line.

    Raises:
        ConfigError: the device or an option is not available.
    """
    with Stage(console, "loading the model"):
        backbone = make_backbone(order)
    with torch_threads(order.threads):
        return measure(backbone, order, console)


def make_backbone(order: EngineOrder) -> Backbone:
    """The backbone to measure on."""
    options = {
        "device": order.device, "dtype": order.dtype, "compile": order.compile, "image_size": order.size,
    }  # fmt: skip
    if order.backbone == "embedded":
        return load_backbone(BackboneSection.model_validate(options))
    from addiffusion.backbones.random_weights import random_backbone  # noqa: PLC0415 - only benchmarks need it

    section = BackboneSection.model_validate({"kind": "stable_diffusion", "path": order.backbone, **options})
    return random_backbone("sd15-random" if order.backbone == "sd15-random" else "sdxl-random", section)


def measure(backbone: Backbone, order: EngineOrder, console: Console = UNSEEN) -> dict[str, Any]:
    """Run all contestants in turns; ``console`` shows how far they are."""
    (prompt,) = backbone.encode_prompts(["a red circle and a blue square"])
    setup = BenchSetup(backbone=backbone, prompt=prompt, guidance_scale=order.guidance_scale, slots=order.slots or 1)
    if backbone.device.type == "cpu":
        keep_freed_memory()
    best = _best_batch(setup, order, console)
    setup = replace(setup, slots=order.slots or best)
    entries = {
        "bare": TimedContestant(BareNetwork(setup, best), setup),
        "bare_same_batch": TimedContestant(BareNetwork(setup, setup.slots), setup),
        "engine": TimedContestant(Continuous(setup), setup),
        "lockstep": TimedContestant(LockStep(setup, setup.slots), setup),
        "pipeline": TimedContestant(StockPipeline(setup), setup),
        "sequential": TimedContestant(LockStep(setup, 1), setup),
    }
    _take_turns(entries, order, console)
    rounds, buckets = min(order.rounds, _SET_ROUNDS), order.compile == "off"  # a compiled network has one shape
    drawn = (
        bench_sets(setup, per_slot=order.set_images, rounds=rounds, buckets=buckets, console=console)
        if order.set_images
        else {}
    )
    rates = {name: float(np.median(entry.rates)) for name, entry in entries.items()}
    return {
        "backbone": order.backbone,
        "device": str(backbone.device),
        "threads": torch.get_num_threads(),
        "dtype": order.dtype,
        "compile": order.compile,
        "slots": setup.slots,
        "slots_found": order.slots is None,
        "guidance_scale": order.guidance_scale,
        "bare_best_batch": best,
        **{f"{name}_nfe_s": rate for name, rate in rates.items()},
        **{f"engine_over_{name}": ratio(entries["engine"], entries[name]) for name in rates if name != "engine"},
        **overhead(setup, order.ticks, console),
        **drawn,
        **_peak(setup, rates),
    }


def table_of(result: dict[str, Any]) -> Table:
    """The result for people."""
    threads = f", {result['threads']} threads" if result["device"] == "cpu" and result["threads"] > 1 else ""
    slots = f"{result['slots']} slots{' (where the network is fastest)' if result['slots_found'] else ''}"
    title = f"{result['backbone']}, {result['device']}{threads}, {result['dtype']}, {slots}"
    table = Table(title=title, box=None, header_style="bold", title_justify="left")
    table.add_column("contestant")
    table.add_column("NFE/s", justify="right")
    table.add_column("engine over it", justify="right")
    for name, text in ROWS.items():
        ratio = "" if name == "engine" else f"{result[f'engine_over_{name}']:.2f}"
        batch = f" ({result['bare_best_batch']})" if name == "bare" else ""
        table.add_row(text + batch, f"{result[f'{name}_nfe_s']:.1f}", ratio)
    for name, text in SHARES.items():
        table.add_row(text, f"{100 * result[name]:.2f} % of a tick", "")
    add_rows(table, result)
    if "peak_frac" in result:
        table.add_row("engine's share of the matmul peak", f"{100 * result['peak_frac']:.0f} %", "")
    return table


def overhead(setup: BenchSetup, tick_count: int, console: Console = UNSEEN) -> dict[str, float]:
    """Shares of a tick outside the network's layers: as benchmarked, and where no decision refines.

    What the layers attended to, computed again for the rows that refine, is the network's own arithmetic and counted by
    itself.
    """
    ticks: list[int] = []
    with Stage(console, "ticks", 2 * tick_count, headline="", counted=lambda: len(ticks)):
        refining, plain = (_shares(setup, refine_frac, tick_count, ticks) for refine_frac in (REFINE_FRAC, 0.0))
    return {
        "overhead_frac": refining["engine"],
        "attention_frac": refining["attention"],
        "overhead_without_refines_frac": plain["engine"],
    }


def _shares(setup: BenchSetup, refine_frac: float, tick_count: int, ticks: list[int]) -> dict[str, float]:
    """Parts of a tick; each is noted in ``ticks``, which takes no time of it."""
    timed = Timed(setup.backbone, setup.finished_s)
    contestant = Continuous(replace(setup, backbone=cast("Backbone", timed)), refine_frac=refine_frac)
    steps = contestant.work()
    next(steps)
    timed.seconds.clear()
    contestant.deciding_s = 0.0
    started = setup.finished_s()
    for tick in range(tick_count):
        next(steps)
        ticks.append(tick)
    whole = setup.finished_s() - started
    network, attention = timed.seconds["network"], timed.seconds["attention"]
    engine = whole - network - attention - contestant.deciding_s
    return {"engine": engine / whole, "attention": attention / whole}


def _best_batch(setup: BenchSetup, order: EngineOrder, console: Console) -> int:
    """The batch at which the bare network is fastest."""
    briefly = replace(order, seconds=order.seconds / 2, rounds=min(order.rounds, 3))
    if order.slots is None:
        entries = _rising_entries(setup, briefly.seconds, console)
    else:
        entries = {batch: TimedContestant(BareNetwork(setup, batch), setup) for batch in _batches(order.slots)}
    _take_turns({f"batch {batch}": entry for batch, entry in entries.items()}, briefly, console)
    return max(entries, key=lambda batch: float(np.median(entries[batch].rates)))


def _rising_entries(setup: BenchSetup, seconds: float, console: Console) -> dict[int, TimedContestant]:
    """The bare network by batch, as long as larger ones are faster and fit into memory."""
    entries: dict[int, TimedContestant] = {}

    def rate(batch: int) -> float:
        stage.remark(str(batch))
        entry = TimedContestant(BareNetwork(setup, batch), setup)
        try:
            entry.warm_up()
            entry.run_for(seconds)
        except torch.OutOfMemoryError:
            return 0.0
        entries[batch] = entry
        return entry.rates[0]

    with Stage(console, "trying batches") as stage:  # nobody knows how many: until larger ones are no faster
        rising_batches(rate)
    return entries


def rising_batches(rate: Callable[[int], float]) -> list[int]:
    """Batch sizes from 1 on, up to where two in a row were no faster than the best before them.

    Args:
        rate: images per second at a batch size; 0 where it does not fit into memory.
    """
    tried: list[int] = []
    best, late = 0.0, 0
    for batch in BATCHES:
        found = rate(batch)
        tried.append(batch)
        late = 0 if found > _FASTER * best else late + 1
        best = max(best, found)
        if late == _LATE or not found:
            break
    return tried


def _take_turns(entries: Mapping[str, TimedContestant], order: EngineOrder, console: Console) -> None:
    for entry in entries.values():
        entry.warm_up()
    turns = {name: partial(entry.run_for, order.seconds) for name, entry in entries.items()}
    shown_turns(turns, order.rounds, console)


def _batches(slots: int) -> Sequence[int]:
    return sorted({slots, *(batch for batch in BATCHES if batch <= 2 * slots)})


def _peak(setup: BenchSetup, rates: dict[str, float]) -> dict[str, float]:
    """On a GPU: FLOP of a pass, the measured bf16 matmul peak, and the share of it that the engine reaches."""
    if setup.backbone.device.type != "cuda":
        return {}
    network = BareNetwork(setup, 1)
    with FlopCounterMode(display=False) as counter:
        next(network.work())
    flop, peak = float(counter.get_total_flops()), _matmul_peak(setup)
    return {"flop_per_nfe": flop, "matmul_peak_flop_s": peak, "peak_frac": rates["engine"] * flop / peak}


def _matmul_peak(setup: BenchSetup) -> float:
    left = torch.randn(_MATMUL, _MATMUL, device=setup.backbone.device, dtype=torch.bfloat16)
    right = left.T.contiguous()
    count, best = 10, float("inf")
    for _ in range(3):
        started = setup.finished_s()
        for _ in range(count):
            torch.mm(left, right)
        best = min(best, setup.finished_s() - started)
    return count * 2.0 * _MATMUL**3 / best
