"""The parts of a day with a GPU, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console

from addiffusion.files import make_folder, write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything: the full sizes on a GPU, the smallest that runs on a CPU."""

    device: str
    tiny: bool
    out: Path
    """Folder of the run; weights that are trained lie below it."""

    @property
    def rounds(self) -> int:
        """Rounds of a benchmark."""
        return 1 if self.tiny else 3

    @property
    def on_a_gpu(self) -> bool:
        """Whether memory can be asked for, and a name."""
        return self.device.startswith("cuda")


Part = Callable[[Size], dict[str, Any]]


def measure(
    parts: Mapping[str, tuple[Part, int]], names: Sequence[str], size: Size, *, seconds: float, console: Console
) -> dict[str, Any]:
    """Figures by part; what failed or had no time left has its reason under `error`.

    Args:
        parts: what can be measured, each with the most seconds it may take.
        names: which of them.
        size: how much of everything.
        seconds: after which no part goes on.
        console: says each part, how long it took, and what went wrong.
    """
    make_folder(size.out)
    path, end = size.out / "gpu_day.json", time.monotonic() + seconds
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures["machine"] = _machine(size)
    for name in names:
        if "error" not in figures.get(name, {"error": "not measured"}):
            console.print(f"{name}: measured before")
            continue
        started = time.monotonic()
        figures[name] = _in_a_process(parts[name][0], size, min(parts[name][1], end - started))
        took = time.monotonic() - started
        write_text(path, json.dumps(figures, indent=1) + "\n")
        console.print(f"{name}: {figures[name].get('error', 'measured')} ({took:.0f} s)", highlight=False)
    return figures


def _in_a_process(part: Part, size: Size, seconds: float) -> dict[str, Any]:
    if seconds <= 0:
        return {"error": "not begun: no time was left"}
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(part, size, writing))
    process.start()
    writing.close()
    try:
        if not reading.poll(seconds):
            return {"error": f"cut after {seconds:.0f} s"}
        return reading.recv()
    except EOFError:
        process.join(10)
        return {"error": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join(10)


def _measure(part: Part, size: Size, writing: Connection) -> None:
    started = time.monotonic()
    try:
        figures = part(size)
    except Exception as error:  # whatever it is, the other parts go on and the file has it
        writing.send({"error": f"{type(error).__name__}: {error}"})
        return
    figures["seconds"] = time.monotonic() - started
    if size.on_a_gpu:
        import torch  # noqa: PLC0415 - the parts bring it

        figures["memory_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    writing.send(figures)


def _machine(size: Size) -> dict[str, str]:
    import torch  # noqa: PLC0415 - the parts bring it

    return {"device": torch.cuda.get_device_name(0) if size.on_a_gpu else "CPU", "torch": torch.__version__}
