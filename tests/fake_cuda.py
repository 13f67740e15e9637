"""A CUDA device that needs no GPU: torch follows devices, dtypes and shapes, and computes nothing.

Any operation that mixes devices raises, index tensors included. What would read a value back from the device is
counted: each such read is a synchronisation.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

ROOT = Path(__file__).parents[1]
_torch: Any = torch
_parse_to = _torch._C._nn._parse_to
CUDA = torch.device("cuda", 0)
Reads = Counter[tuple[str, str]]
"""How often a function of the product read a tensor back, by its file and name."""


@contextmanager
def fake_cuda() -> Iterator[Reads]:
    """Everything inside believes in a GPU; yields the reads from it."""
    reads = Reads()
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for replaced in (
            patch("torch.cuda.is_available", lambda: True),
            patch.object(nn.Module, "to", _move),
            patch("torch.tensor", _tensor_on(torch.tensor)),
            patch.object(FakeTensor, "numpy", _numpy),
            patch.object(FakeTensor, "tolist", lambda tensor: _read(tensor, reads).tolist()),
            patch.object(FakeTensor, "item", lambda tensor: _read(tensor, reads).item()),
            patch.object(FakeTensor, "__bool__", lambda tensor: bool(_read(tensor, reads))),
            patch.object(FakeTensor, "__float__", lambda tensor: float(_read(tensor, reads))),
            patch.object(FakeTensor, "__int__", lambda tensor: int(_read(tensor, reads))),
        ):
            stack.enter_context(replaced)
        stack.enter_context(patch.object(FakeTensor, "cpu", _counted_cpu(FakeTensor.cpu, reads)))
        yield reads


def _move(module: nn.Module, *args: Any, **options: Any) -> nn.Module:
    """``module.to``: parameters and buffers are replaced by empty ones, which the real one can't swap in."""
    device, dtype, *_ = _parse_to(*args, **options)
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            part.register_parameter(name, nn.Parameter(_like(value, device, dtype), requires_grad=False))
        for name, value in part.named_buffers(recurse=False):
            part.register_buffer(name, _like(value, device, dtype), name not in part._non_persistent_buffers_set)
    return module


def _like(value: Tensor, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    kept = dtype if dtype is not None and value.is_floating_point() else value.dtype
    return torch.empty(value.shape, dtype=kept, device=device or value.device)


def _tensor_on(real: Any) -> Any:
    def tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **rest: Any) -> Tensor:
        if device is None or torch.device(device).type == "cpu":
            return real(data, dtype=dtype, **rest)
        array = np.asarray(data)
        return torch.empty(array.shape, dtype=dtype or _dtype(data), device=device)

    return tensor


def _dtype(data: Any) -> torch.dtype:
    """As torch takes it: Python's numbers with a point are single, numpy's keep their own precision."""
    kind = np.asarray(data).dtype
    if kind == np.float64:
        return torch.float32 if not isinstance(data, np.ndarray) else torch.float64
    return {"b": torch.bool, "u": torch.uint8, "i": torch.int64, "f": torch.float32}[kind.kind]


def _numpy(tensor: Tensor, *_: Any, **__: Any) -> Any:
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} tensor to numpy: use .cpu() first")
    return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _read(tensor: Tensor, reads: Reads) -> Any:
    """Ones: finite, and true."""
    if tensor.device.type != "cpu":
        reads[_caller()] += 1
    shape = () if tensor.numel() == 1 else tuple(tensor.shape)
    return np.ones(shape, str(tensor.dtype).removeprefix("torch.").replace("bfloat16", "float32"))


def _counted_cpu(real: Any, reads: Reads) -> Any:
    def cpu(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        if tensor.device.type != "cpu":
            reads[_caller()] += 1
        return real(tensor, *args, **options)

    return cpu


def _caller() -> tuple[str, str]:
    """The innermost function of the product on the stack."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests") and ".venv" not in path.parts:
            return str(path.relative_to(ROOT)), frame.name
    return "", ""
