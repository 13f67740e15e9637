"""Freed memory stays with the process: taking it again costs no page faults, as it would by default.

Imports are not searched for garbage, and are old afterwards.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys

import pytest

from addiffusion.backbones import backbone_class

PROGRAM = """
import os, resource, torch
from addiffusion.memory import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def take(times):
    for _ in range(times):
        [torch.ones(2**20) for _ in range(32)]
for kept in (False, True):
    child = os.fork()  # a heap of its own on the same imports
    if not child:
        torch.set_num_threads(1)
        assert not kept or keep_freed_memory()
        take(3)  # until the heap has grown to its shape
        before = faults()
        take(10)
        print(faults() - before, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


HANDS_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc's own start values, held: left alone it raises them, and whether it keeps these tensors is then chance."""


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc")
def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    pages = 10 * 128 * 2**20 // resource.getpagesize()
    command, environment = [sys.executable, "-c", PROGRAM], {**os.environ, **HANDS_BACK}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    handed_back, kept = map(int, done.stdout.split())
    assert handed_back > pages / 2
    assert kept < pages / 50


SEARCHED = """
import gc
from addiffusion.memory import without_garbage_search
class Made: pass
def place(): return next(number for number in range(3) if any(type(one) is Made for one in gc.get_objects(number)))
gc.disable()
with without_garbage_search():
    pass
assert not gc.isenabled()
gc.enable()
try:
    with without_garbage_search():
        assert not gc.isenabled()
        made = Made()
        assert place() == 0
        raise ImportError
except ImportError:
    pass
assert gc.isenabled()
assert place() == 2
gc.freeze()
frozen = gc.get_freeze_count()
with without_garbage_search():
    pass
assert gc.isenabled()
assert gc.get_freeze_count() == frozen > 0
"""


def test_imports_are_not_searched_for_garbage() -> None:
    """A process that searches before does so afterwards, whatever happens; one that does not is left alone."""
    done = subprocess.run([sys.executable, "-c", SEARCHED], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_who_asks_again_for_a_model_leaves_the_search_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline asks at every call, and what is young then must not count as old."""
    first = backbone_class("stable_diffusion")
    for name in ("disable", "freeze"):
        monkeypatch.setattr(gc, name, lambda: pytest.fail("garbage would not be searched for"))
    assert backbone_class("stable_diffusion") is first
