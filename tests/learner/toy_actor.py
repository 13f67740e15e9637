"""A remote worker for the toy task that misbehaves on demand. Imports little: each of its processes pays for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ray

from addiffusion.baseline import Baseline
from addiffusion.config import Config
from addiffusion.errors import ContractError, DeviceLostError
from addiffusion.poisoned import device_losses_named, end_process
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from addiffusion.scorers.base import Scoring
from tests.fakes import ToyScoring
from tests.learner.toy import ToyRollouts, toy_config, toy_weights

Fault = Literal["dies", "loses its device", "dawdles", "hangs", "raises", "is wrong"]


class ToyActor:
    """Shows the fault named in the file ``order`` once, in its next call: the file outlives the process.

    A call ends whatever tickets it brings.
    """

    def __init__(self, config: Config, order: Path) -> None:
        self._rollouts = ToyRollouts(config)
        self._order = order
        self._fetches = 0
        self._ending = False

    def ping(self) -> str:
        if self._ending:
            raise DeviceLostError("This process is about to end.", reason="CUDA error: unknown error")
        return "pong"

    def fetches(self) -> int:
        """How often this process has fetched weights."""
        return self._fetches

    def work(self, tickets: Sequence[Ticket], *, session: int, more: bool, **call: Any) -> Collected:
        if tickets:
            return self.collect(tickets, baseline=None, **call)
        self._take_weights(call["weights"], call["weight_version"])
        return Collected(episodes=())

    def collect(
        self,
        tickets: Sequence[Ticket],
        *,
        sampler: Any,
        baseline: Baseline | None,
        weights: list[ray.ObjectRef],
        weight_version: int,
    ) -> Collected:
        if self._order.exists():
            fault = self._order.read_text()
            self._order.unlink()
            self._ending = fault == "loses its device"
            _show(fault)
        self._take_weights(weights, weight_version)
        return (baseline.make(ToyScoring()) if baseline else self._rollouts).collect(tickets, sampler=sampler)

    def _take_weights(self, weights: list[ray.ObjectRef], weight_version: int) -> None:
        if weight_version != self._rollouts.version:
            self._fetches += 1
            self._rollouts.set_weights(ray.get(weights[0], timeout=30), weight_version)


class ToyBaseline(ToyRollouts):
    """Needs nobody's weights."""

    def __init__(self, _scoring: Scoring) -> None:
        super().__init__(toy_config())
        self.set_weights(toy_weights(toy_config()), 0)


def _show(fault: str) -> None:
    match fault:
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "loses its device":
            threading.Timer(0.5, end_process, ["CUDA error: unknown error"]).start()
            with device_losses_named():
                raise RuntimeError("CUDA error: unknown error")
        case "dawdles":
            time.sleep(2)
        case "hangs":
            time.sleep(600)
        case "raises":
            raise ZeroDivisionError
        case _:
            raise ContractError("This is a defect.", where="here")
