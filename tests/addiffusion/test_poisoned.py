"""Which errors end a process, and how it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from addiffusion.errors import ScorerError
from addiffusion.poisoned import EXIT_CODE, first_line, is_poisoned

_ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


def _accelerator_error(message: str, code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError(message)
    error.error_code = code  # pyright: ignore[reportAttributeAccessIssue] - set by torch, unknown to its stubs
    return error


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: device-side assert triggered" + _ADVICE,
        "CUDA error: an illegal memory access was encountered" + _ADVICE,
        "CUDA error: unknown error" + _ADVICE,
        "CUDA driver error: unknown error",
        "CUDA error: uncorrectable ECC error encountered" + _ADVICE,
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "HIP error: unspecified launch failure",
    ],
)
def test_a_device_that_does_not_come_back_poisons_its_process(message: str) -> None:
    """Whether the error carries a code or only its text."""
    assert is_poisoned(RuntimeError(message))
    assert is_poisoned(torch.AcceleratorError(message))


@pytest.mark.parametrize(
    ("code", "poisoned"), [(710, True), (700, True), (999, True), (214, True), (2, False), (1, False)]
)
def test_the_code_of_an_accelerator_error_decides(code: int, poisoned: bool) -> None:
    """As CUDA documents them: those after which every call returns the same error."""
    assert is_poisoned(_accelerator_error("CUDA error: see the code", code)) is poisoned


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory" + _ADVICE),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"),
        RuntimeError("unknown error"),
        ValueError("CUDA error: device-side assert triggered, said somebody"),
        MemoryError(),
    ],
)
def test_anything_else_leaves_the_process_usable(error: Exception) -> None:
    """Lack of memory above all: it has a cure of its own."""
    assert not is_poisoned(error)


def test_the_cause_of_an_error_counts() -> None:
    """A model's error may travel inside one of ours."""
    error = ScorerError("scorer `clip` failed.")
    error.__cause__ = RuntimeError("CUDA error: device-side assert triggered" + _ADVICE)
    assert is_poisoned(error)
    assert first_line(error.__cause__) == "CUDA error: device-side assert triggered"


def test_a_process_ends_with_its_reason() -> None:
    """At once, past ``finally`` and exit handlers, which may wait for the device."""
    program = (
        "import atexit, sys\nfrom addiffusion.poisoned import end_process\natexit.register(print, 'never')\n"
        "print('before')\ntry:\n    end_process('CUDA error: unknown error')\nfinally:\n    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == EXIT_CODE
    assert done.stdout == "before\n"
    assert done.stderr.strip().endswith("CUDA error: unknown error")
