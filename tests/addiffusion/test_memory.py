"""Freed memory stays with the process: taking it again costs no page faults."""

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
torch.ones(2**22); torch.ones(2**22)
before = faults()
for _ in range(50):
    torch.ones(2**22), torch.ones(2**21)
print(faults() - before)
"""


def faults(kept: bool) -> int:
    command = [sys.executable, "-c", PROGRAM, str(int(kept))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=dict(os.environ))
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc")
def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    pages = 50 * 24 * 2**20 // resource.getpagesize()
    assert faults(kept=True) < pages / 10  # the first touch of one to three of the fifty blocks
