"""Freed memory stays with the process: taking it again costs no page faults, as it would by default."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from addiffusion.memory import keep_freed_memory
assert not int(sys.argv[1]) or keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def take(times):
    for _ in range(times):
        [torch.ones(2**20) for _ in range(32)]
take(5)  # until the heap has grown to its shape
before = faults()
take(20)
print(faults() - before)
"""


HANDS_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc's own start values, held: left alone it raises them, and whether it keeps these tensors is then chance."""


def faults(kept: bool) -> int:
    command = [sys.executable, "-c", PROGRAM, str(int(kept))]
    environment = {**os.environ, **HANDS_BACK}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc")
def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    pages = 20 * 128 * 2**20 // resource.getpagesize()
    assert faults(kept=False) > pages / 2
    assert faults(kept=True) < pages / 50
