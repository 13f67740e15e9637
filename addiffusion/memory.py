"""Memory: how much there is, how the C library keeps what tensors have given back, when garbage is searched for."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

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


@contextmanager
def without_garbage_search() -> Generator[None]:
    """Import libraries without searching what they make for garbage.

    Nearly all of it stays for as long as the process does, yet is gone through again and again while it grows: a sixth
    of the CPU time that the imports of a model take. What was made within the block counts as old afterwards. Who has
    no search at all, or has set objects apart from it (``gc.freeze``), keeps that.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # both together only make old what is young
        gc.enable()
