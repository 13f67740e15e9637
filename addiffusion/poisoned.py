"""Accelerator errors after which a process can do no more work: only a new process has a device again."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import torch

EXIT_CODE: Final = 86
"""Of a process that has ended itself because its device is lost to it."""

_CODES: Final = frozenset(
    (46, 53, 100, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999)
)
"""CUDA runtime errors (HIP uses the same numbers) that every later call of the process returns again."""
_PHRASES: Final = (
    "device(s) is/are busy or unavailable",
    "unspecified launch failure",
    "no CUDA-capable device is detected",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "Invalid access of peer GPU memory over nvlink",
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "context is destroyed",
    "device-side assert triggered",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "tensor memory not completely freed",
    "MPS client has been terminated",
    "async error has occured in external entity",
    "error: unknown error",
)
"""The texts of ``_CODES``, for errors that carry no code: those of libraries and of the driver."""
_OF_A_DEVICE: Final = re.compile(r"\b(CUDA|HIP|Triton Error|cuDNN|CUDNN_STATUS|CUBLAS_STATUS|MIOpen)\b", re.IGNORECASE)


def is_poisoned(error: BaseException) -> bool:
    """Whether ``error``, or one that caused it, says that the accelerator is lost to this process for good.

    Lack of memory is none of these. Where a library only reports that it failed, the device itself is asked.
    """
    return any(_is_sticky(one) for one in _chain(error))


def first_line(error: BaseException) -> str:
    """What an accelerator error says, without torch's advice on debugging."""
    return (str(error) or type(error).__name__).split("\n", maxsplit=1)[0].rstrip(". ")


def end_process(reason: str) -> NoReturn:
    """End this process at once; ``reason`` is its last line on stderr. Whoever supervises it starts another one."""
    sys.stdout.flush()
    print(reason, file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_sticky(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    code: int | None = getattr(error, "error_code", None)
    if code is not None:
        return code in _CODES
    message = str(error)
    if not _OF_A_DEVICE.search(message) or "out of memory" in message:
        return False
    return any(phrase in message for phrase in _PHRASES) or not _device_answers()


def _device_answers() -> bool:
    """Whether this process can still use its accelerator, if it has begun to."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
