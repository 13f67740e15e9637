"""This machine's memory: how much there is, and how the C library keeps what tensors have given back."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of mallopt's parameters, as malloc.h has them."""
_LARGEST_MMAP_THRESHOLD = 2**25
_NEVER = 2**30


def machine_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, instead of handing it back to the system.

    A network pass on a CPU frees and takes hundreds of megabytes. glibc hands them back each time, and the next pass
    pays for every page again: about a tenth of a pass of the embedded network. The process's memory then stays at its
    peak. For processes of our own, not for a user's: it can't be undone.

    Returns:
        Whether the C library took it; False where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
