"""The wheel, installed without extras into an empty environment and used from another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = os.environ.get("UV") or shutil.which("uv") or "uv"
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and what it requires, and a folder that holds nothing."""

    environment: Path
    folder: Path

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the environment, with none of this process's own settings for Python."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return subprocess.run(
            [str(self.environment / "bin" / name), *arguments],
            cwd=self.folder,
            env=kept,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def uv(*arguments: str) -> str:
    done = subprocess.run([UV, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lend_bytecode(environment: Path) -> None:
    """Its files come from uv's cache as ours do, so what is compiled here need not be compiled again there."""
    here = Path(sysconfig.get_path("purelib"))
    (there,) = environment.glob("lib/python*/site-packages")
    for compiled in here.rglob("__pycache__"):
        place = there / compiled.relative_to(here)
        if place.parent.is_dir() and not place.exists():
            shutil.copytree(compiled, place)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    base = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", str(base))
    (wheel,) = base.glob("*.whl")
    uv("venv", "--python", f"{sys.version_info.major}.{sys.version_info.minor}", str(base / "environment"))
    locked = base / "locked.txt"
    locked.write_text(uv("export", "--locked", "--no-dev", "--all-extras", "--no-emit-project", "--no-hashes", "-q"))
    uv("pip", "install", "--python", str(base / "environment"), "--constraints", str(locked), str(wheel))
    lend_bytecode(base / "environment")
    (base / "elsewhere").mkdir()
    yield Installed(base / "environment", base / "elsewhere")
    shutil.rmtree(base / "environment")  # 35,000 files, which pytest would keep for three runs


def test_it_is_imported_without_what_trains_and_what_evaluates(installed: Installed) -> None:
    library = "addiffusion, addiffusion.policy, addiffusion.sampling.engine, addiffusion.backbones"
    absent = ["ray", "open_clip", "timm", "matplotlib", "plotly", "optuna", "pyarrow"]
    program = f"import {library}; from importlib.util import find_spec; print([n for n in {absent} if find_spec(n)])"
    done = installed.run("python", "-c", program)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)


def test_the_command_line_runs_and_finds_what_ships_with_it(installed: Installed) -> None:
    done = installed.run("addiffusion", "config", "ppo.iterations=3", "--json")
    assert '"iterations":3' in done.stdout.replace(" ", ""), done.stderr


def test_the_built_in_model_draws(installed: Installed) -> None:
    done = installed.run("addiffusion", "sample", "a red circle", "sampler.num_steps=4", "--out", "image.png")
    assert done.returncode == 0, done.stderr
    assert (installed.folder / "image.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("command", "extra"),
    [(("train",), "train"), (("sample", "a red circle", "--policy", "shipped"), "train"), (("serve",), "serve")],
    ids=["training", "a policy that looks by CLIP", "a server"],
)
def test_what_an_extra_brings_is_missed_in_one_sentence(
    installed: Installed, command: tuple[str, ...], extra: str
) -> None:
    done = installed.run("addiffusion", *command)
    assert done.returncode == 2
    assert f"pip install 'addiffusion[{extra}]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
