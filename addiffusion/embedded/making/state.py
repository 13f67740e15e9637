"""Files of a training loop: atomic checkpoints and a loss log that never runs ahead of them."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addiffusion.errors import CheckpointError
from addiffusion.files import append_line, whole_file, write_text


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes ``state`` so that ``path`` always holds either the old or the new checkpoint, never a part of one.

    Raises:
        OutputError: the disk is full, or can't be written.
    """
    content = io.BytesIO()  # torch turns what a file system says into a RuntimeError
    torch.save(dict(state), content)
    with whole_file(path) as draft, draft.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load_state(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint on the CPU and checks that it continues the run described by ``identity``.

    Raises:
        CheckpointError: the file can't be read, or was written by another part, seed, length or recipe.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found: Mapping[str, Any] = state["identity"]
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"The training checkpoint {path} can't be read ({error}); delete it to train this part from the start.",
            path=str(path),
        ) from error
    for key, value in identity.items():
        if found.get(key) != value:
            raise CheckpointError(
                f"The training checkpoint {path} has {key}={found.get(key)!r} but this run asks for {value!r}; "
                "use the same settings to go on, or delete it to train this part from the start.",
                path=str(path),
                key=key,
            )
    return state


class LossLog:
    """Mean metrics per window, appended to a JSONL file with one row per window."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor | float] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Adds one step to the open window; tensors stay on their device, so nothing waits for a GPU here."""
        for name, value in metrics.items():
            number = value.detach() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + number
        self._count += 1

    def write(self, step: int, lr: float) -> dict[str, float]:
        """Closes the window: appends its means as one row and returns them."""
        self.last = {name: float(value) / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        append_line(self.path, json.dumps({"step": step, "lr": lr, **self.last}))
        return self.last

    def keep_until(self, step: int) -> None:
        """Drops rows after ``step``: a resumed run will write them again."""
        if not self.path.exists():
            return
        kept = [row for row in self._rows() if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.last = {k: v for k, v in kept[-1].items() if k not in {"step", "lr"}} if kept else {}

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # the row a kill cut short; its step is trained again
                break
        return rows
