"""What tests share: one thread for torch, one Ray for the whole session, three processes for a whole run."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # uv's hook would copy the working tree per worker
os.environ.setdefault("RAY_worker_niceness", "0")  # of 15 by itself, beside which everybody else would go first
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # a busy machine needs more than the default

import numpy as np
import pytest
import torch
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import tests.typecheck  # noqa: F401 - checked modules import only the package and expect it there
from addiffusion.memory import keep_freed_memory


def frames_alone(context: int = 1) -> list[inspect.FrameInfo]:
    """The stack without the sources around each frame.

    RLlib asks for the whole stack at each connector, to look at one frame. A checked function has no file of its own,
    and to find one for it ``inspect`` goes through all modules, three times a frame: a second for each learner.
    """
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return frames


inspect.stack = frames_alone
torch.set_num_threads(1)
keep_freed_memory()  # as the processes of a run do
gc.disable()  # until everything is imported: a tenth of that time
atexit.register(gc.unfreeze)  # else libraries count what was kept as leaks, and say so at the end

ROOT = str(Path(__file__).parents[1])
SEED = 20_240_901

RAY_NAMESPACE = "test"
OBJECT_STORE_BYTES = 200_000_000
START_ATTEMPTS = 2
PROCESSES = 3
NICENESS = 5


STARTS_RAY = frozenset({"tests/cluster/test_submit.py", "tests/launch/runtime/test_token.py"})
"""Files whose own processes start Ray, beside those that use the fixture."""
LONGEST = (
    "ray",
    "tests/launch/cli/test_readme.py",
    "tests/launch/comparing/test_evaluate.py",
    "tests/test_wheel.py",
    "tests/launch/cli/test_imports.py",
    "tests/launch/bench/test_bench.py",
    "tests/addiffusion/backbones/test_published_layouts.py",
    "tests/addiffusion/pipeline/test_examples.py",
    "tests/test_gpu_day.py",
    "tests/launch/training/test_train.py",
    "tests/evaluation/test_inception.py",
)
"""What takes longest begins first, that no process is alone at the end."""


class ByFile(LoadScopeScheduling):
    """A file's tests stay together, because they share fixtures; so do those of all files on Ray, one after another."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return "ray" if _on_ray(file) else file


@cache
def _on_ray(file: str) -> bool:
    return file in STARTS_RAY or "ray_cluster" in Path(ROOT, file).read_text()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A whole run has one for the tests on Ray, which mostly wait, and two for the others; a part has one."""
    return PROCESSES if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Groups by mark (`--dist loadgroup`) would say the same, but pytest-xdist 3.8 loses them under pytest 9.2."""
    config.option.loadscopereorder = False  # by the number of their tests
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        order = {scope: place for place, scope in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(scope_of(item.nodeid), len(order)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported stays: no later search for garbage goes through it."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test, its fixtures of any scope included, sees the same global random streams on every machine.

    Beside others, what does not wait for other processes leaves the cores to what does.
    """
    if hasattr(item.config, "workerinput") and scope_of(item.nodeid) != "ray":
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - the stream that libraries draw from
    torch.manual_seed(SEED)


@pytest.fixture(scope="module")
def figures_once() -> Iterator[None]:
    """For files of many small runs, of whose time figures take half: every figure is built, and the first of its kind
    (a form with these titles) is laid out and painted too.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - for those who draw

    painted: set[tuple[object, ...]] = set()

    def save(figure: Figure, file: Path, **options: object) -> None:
        kind = (*figure.get_size_inches(), *(axes.get_title("left") for axes in figure.axes))
        if kind in painted:
            Image.new("RGB", (1, 1)).save(file, format="PNG")
        else:
            paint(figure, file, **options)
            painted.add(kind)

    paint = Figure.savefig
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="module")
def short_bench() -> Iterator[None]:
    """`bench engine` with few passes of diffusers' pipeline; seconds, rounds and ticks are what an order says."""
    from launch.bench import contestants  # noqa: PLC0415 - diffusers, which takes seconds

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(contestants.StockPipeline, "STEPS", 4)
        yield


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """A Ray of four (nominal) CPUs on this machine; yields the namespace of its named actors."""
    _show_fakes_to_workers()
    start_ray()
    yield RAY_NAMESPACE
    import ray  # noqa: PLC0415 - see start_ray

    ray.shutdown()


def _show_fakes_to_workers() -> None:
    """Ray's processes inherit this environment: what tests can import, actors can."""
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])


def start_ray() -> None:
    """Ray's start can starve beside other work: a second attempt is part of starting it."""
    import ray  # noqa: PLC0415 - takes a second, which files without Ray need not wait for

    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                num_cpus=4,
                include_dashboard=False,
                log_to_driver=False,
                namespace=RAY_NAMESPACE,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        except Exception:
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise
        else:
            return
