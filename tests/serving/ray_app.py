"""The toy model as an application of Ray Serve, for `serve deploy`: slow, and with notes of what its engines do."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.serve import Application

from addiffusion.actions import Action
from addiffusion.metrics import Metric
from serving.app import ReplicaOptions, application
from serving.limits import Limits
from serving.metrics import SLOTS
from serving.model import ServedModel
from tests.serving.toy_server import STEPS, SlowBackbone, toy_model

SLOTS_OF_AN_ENGINE = 4
WAITING = 12
STOPS_AT = 60
_NOTED_EVERY_S = 0.5


class NotedMeters:
    """The last value of every gauge and the sums of all else, in a file."""

    def __init__(self, folder: str, replica: str) -> None:
        self._file = Path(folder) / f"{replica.replace('#', '-')}.json"
        self._values: dict[str, float] = {}
        self._noted_s = 0.0

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        name = " ".join([metric.name, *tags.values()])
        self._values[name] = value if metric.kind == "gauge" else self._values.get(name, 0.0) + value
        idle = metric is SLOTS and value == 0
        if idle or time.monotonic() > self._noted_s + _NOTED_EVERY_S:
            self._noted_s = time.monotonic()
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(self._values))
            fresh.replace(self._file)


def build(arguments: dict[str, Any]) -> Application:
    """What `import_path` names: ``notes`` is a folder for a file of each engine, ``pass_s`` what a pass takes."""
    options = ReplicaOptions(
        load=partial(_model, arguments["pass_s"]),
        host="127.0.0.1",
        key_file=None,
        limits=Limits(waiting_images=WAITING),
    )
    return application(options, partial(NotedMeters, arguments["notes"]))


def _model(pass_s: float) -> ServedModel:
    return toy_model(backbone=SlowBackbone(pass_s), act=_stop_late, slots=SLOTS_OF_AN_ENGINE)


def _stop_late(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    """After `STOPS_AT` steps: latent phi ends with the step, NFE, price and attention, the first two in `STEPS`."""
    logits = np.zeros((len(phi), 3), np.float32)
    logits[np.arange(len(phi)), np.where(phi[:, -4] > STOPS_AT / STEPS, Action.STOP, Action.CONTINUE)] = 1
    return logits
