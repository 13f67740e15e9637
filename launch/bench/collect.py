"""`addiffusion bench collect`: how much of the bare computing time the whole rollout loop reaches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Prompt, ScoreReply, ScoreRequest, Ticket, TicketId
from addiffusion.scorers.base import Scoring
from addiffusion.seeds import derive_seed
from addiffusion.threads import torch_threads
from evaluation.tables import Table
from launch.bench.setup import CollectSetup
from launch.runtime.console import UNSEEN, Stage
from rollout_workers.worker import Worker

_REPEATS: Final = 5
_ROUNDS: Final = 3
_PARTS: Final = 4
"""Measurements of a round: the loop, then network, decodes and scores alone."""


def bench_collect(setup: CollectSetup, console: Console = UNSEEN) -> dict[str, Any]:
    """Wall clock of a rollout, the time its computing alone takes on this machine, and their ratio.

    In each round the loop is run with everything counted; then as many network passes, decodes and scored images of the
    same batch shapes are timed on their own, one after the other. A machine's moods are so in both; the round with the
    median ratio is told.
    """
    counted, watched = _CountedBackbone(setup.backbone), _CountedScoring(setup.scoring)
    worker = _worker(setup, counted, watched)
    tickets = [_ticket(position, prompt, setup.config) for position, prompt in enumerate(setup.prompts)]
    with Stage(console, "warming up"):
        worker.collect(tickets[:1])  # loads, compiles and fills caches
    with Stage(console, "measurements", _ROUNDS * _PARTS, headline="") as stage:
        rounds = [_round(worker, counted, watched, tickets, stage.advance) for _ in range(_ROUNDS)]
    middle = sorted(rounds, key=lambda one: one["loop_over_compute"])[_ROUNDS // 2]
    config = setup.config
    shape = {"slots": config.rollout.slots, "rows": config.network_rows}
    return {**shape, "observation": config.observation.kind, **middle}


def _round(
    worker: Worker,
    counted: _CountedBackbone,
    watched: _CountedScoring,
    tickets: Sequence[Ticket],
    advance: Callable[[], None],
) -> dict[str, Any]:
    counted.counts.clear()
    watched.counts.clear()
    started = time.perf_counter()
    collected = worker.collect(tickets)
    wall_s = time.perf_counter() - started
    advance()
    with torch_threads(1):  # as in the worker
        alone: list[float] = []
        for part in (partial(counted.alone_s, "denoise"), partial(counted.alone_s, "decode"), watched.alone_s):
            alone.append(part())
            advance()
    network_s, decode_s, score_s = alone
    compute_s = network_s + decode_s + score_s
    nfe = sum(episode.nfe for episode in collected.episodes)
    return {
        "episodes": len(collected.episodes),
        "failed": len(collected.failed),
        "nfe": nfe,
        "wall_s": wall_s,
        "compute_s": compute_s,
        "loop_over_compute": compute_s / wall_s,
        "observe_over_network": collected.stage_s["observe"] / collected.stage_s["network"],
        "compute_network_s": network_s,
        "compute_decode_s": decode_s,
        "compute_score_s": score_s,
        **{f"stage_{name}_s": seconds for name, seconds in collected.stage_s.items()},
        "nfe_s": nfe / wall_s,
        "episodes_s": len(collected.episodes) / wall_s,
    }


def table_of(result: dict[str, Any]) -> Table:
    """The result for people."""
    table = Table(box=None, header_style="bold")
    for name in ("stage", "in the loop", "alone"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name in ("network", "decode", "score", "wait", "observe", "policy", "commit"):
        alone = result.get(f"compute_{name}_s")
        shown = "" if alone is None else f"{alone:.2f} s"
        table.add_row(name, f"{result[f'stage_{name}_s']:.2f} s", shown)
    share = f"{100 * result['observe_over_network']:.1f} %"
    table.add_row("observe, of the network", share, "")
    ratio = f"{100 * result['loop_over_compute']:.0f} % of the computing alone"
    table.add_row("all", f"{result['wall_s']:.2f} s ({ratio})", f"{result['compute_s']:.2f} s", style="bold")
    return table


class _CountedBackbone:
    """A backbone that remembers how often it was asked for what, at which batch shape."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone: Any = backbone
        self.counts: Counter[tuple[str, int]] = Counter()
        self._inputs: dict[tuple[str, int], tuple[Tensor, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def denoise(self, *inputs: Tensor) -> Tensor:
        """One pass, counted."""
        return self._counted("denoise", "denoise", inputs)

    def decode(self, z0: Tensor) -> Any:
        """Images, counted."""
        return self._counted("decode", "decode", (z0,))

    def preview(self, z0: Tensor) -> Any:
        """Images, counted with the decodes."""
        return self._counted("decode", "preview", (z0,))

    def _counted(self, kind: str, method: str, inputs: tuple[Tensor, ...]) -> Any:
        key = f"{kind} {method}", len(inputs[0])
        self.counts[key] += 1
        self._inputs[key] = inputs
        return getattr(self._backbone, method)(*inputs)

    def alone_s(self, kind: str) -> float:
        """Seconds that all counted calls of a kind take on their own."""
        total = 0.0
        for key, count in self.counts.items():
            if key[0].startswith(kind):
                method = getattr(self._backbone, key[0].split()[1])
                inputs = self._inputs[key]
                total += count * _best_s(lambda method=method, inputs=inputs: method(*inputs), self._backbone.device)
        return total


class _CountedScoring:
    """Scoring that remembers how often it was asked for how many images."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring: Any = scoring
        self.counts: Counter[int] = Counter()
        self._requests: dict[int, ScoreRequest] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scoring, name)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores, counted."""
        self.counts[len(request.images)] += 1
        self._requests[len(request.images)] = request
        return self._scoring.score(request)

    def alone_s(self) -> float:
        """Seconds that all counted requests take on their own."""
        device = torch.device("cpu")  # a reply is a host array: nothing is left running
        return sum(
            count * _best_s(lambda request=self._requests[size]: self._scoring.score(request), device)
            for size, count in self.counts.items()
        )


def _best_s(call: Any, device: torch.device) -> float:
    """Median seconds of a call."""
    seconds: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _worker(setup: CollectSetup, backbone: Any, scoring: Any) -> Worker:
    section = setup.config.policy
    policy = PolicyNetwork(setup.width, section.hidden, prior=section.prior, actions=section.actions)
    worker = Worker(setup.config, policy=policy, backbone=lambda: backbone, scoring=lambda: scoring)
    worker.set_weights({name: value.numpy().copy() for name, value in policy.state_dict().items()}, version=0)
    return worker


def _ticket(position: int, prompt: Prompt, config: Config) -> Ticket:
    seed = config.run.seed
    return Ticket(
        ticket_id=TicketId(position),
        prompt=prompt,
        seed=derive_seed(seed, "bench", position),
        action_seed=derive_seed(seed, "bench-action", position),
        c_nfe=config.reward.c_nfe,
    )
