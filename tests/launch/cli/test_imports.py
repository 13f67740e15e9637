"""What a process holds after its work: heavy libraries only where they are used.

Each test is one new process, which does several things one after another and lists its modules after each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from addiffusion.config import Config
from launch.bench.startup import NEEDED
from tests.launch.training.toy_policy import toy_policy

CODE = """
import json, sys
from typer.testing import CliRunner
from launch.cli.app import app

def do(first, *rest):
    if first == "python":
        return exec(*rest, {})
    done = CliRunner().invoke(app, [first, *rest])
    assert done.exit_code == 0, done.output

for words in json.loads(sys.argv[1]):
    do(*words)
    print(json.dumps(sorted(sys.modules)))
"""
OURS = frozenset({"addiffusion", "evaluation", "launch", "learner", "reward_service", "rollout_workers", "serving"})
PICTURES = frozenset({"matplotlib", "plotly"})
SCORERS = frozenset({"open_clip", "timm"})
BACKBONES = frozenset({"diffusers", "peft"})
MODELS = SCORERS | BACKBONES | {"torch._dynamo", "torchvision", "transformers"}
SEARCH = frozenset({"optuna", "sklearn"})
NOT_SEARCHED = ("python", "import gc; assert gc.get_stats()[2]['collections'] <= 1")
"""All that is imported was not gone through again and again, to find garbage."""


def held_after(*deeds: tuple[str, ...]) -> list[set[str]]:
    """Modules of a new process after each deed: a command line of ours, or `python` and code."""
    command = [sys.executable, "-c", CODE, json.dumps(deeds)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


COMMAND_LINE = frozenset(
    {"annotated_doc", "attr", "click", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}
)
VALIDATION = frozenset({"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"})


def test_help_and_configuration_come_at_once() -> None:
    """Neither imports a library of numbers or models: the whole list of others is short."""
    face = ("python", "import addiffusion; dir(addiffusion)")
    faced, helped, configured = held_after(face, ("train", "--help"), ("config",))
    assert foreign(faced) <= COMMAND_LINE  # what it exports is imported when it is asked for
    assert foreign(helped) <= COMMAND_LINE | VALIDATION
    assert "addiffusion.config" not in helped  # it builds its models when it is imported
    assert foreign(configured) <= COMMAND_LINE | VALIDATION | {"cython_runtime", "yaml"}


def foreign(held: set[str]) -> set[str]:
    """Packages of others, without what the interpreter brings or its environment loads at its start."""
    packages = {name.partition(".")[0] for name in held}
    return {name for name in packages - sys.stdlib_module_names - OURS if not name.startswith("_")}


def test_drawing_loads_no_scorer_where_nobody_looks_at_the_image(tmp_path: Path) -> None:
    """Neither without a policy, nor with one that sees latents."""
    policy = toy_policy(tmp_path / "policy", Config.model_validate({"observation": {"kind": "latent"}}))
    words = ("a red circle", "sampler.num_steps=5", "sampler.warmup_steps=3", "-o", str(tmp_path / "a.png"))
    plain, _, decided = held_after(("sample", *words), NOT_SEARCHED, ("sample", *words, "--policy", str(policy)))
    for held in (plain, decided):
        assert not held & (SCORERS | PICTURES | SEARCH | {"ray", "pandas"})
    assert set(NEEDED["sample"]) <= plain  # else the bench's bound is no bound


def test_scoring_loads_no_denoiser(tmp_path: Path) -> None:
    """Nor what trains: the reward service's process scores with the same suite."""
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(image)
    words = ("score", str(image), "-p", "a red circle")
    called, scored, _ = held_after(("python", "import reward_service.actor"), words, NOT_SEARCHED)
    others = BACKBONES | PICTURES | SEARCH | {"pandas", "ray.rllib", "ray.tune"}
    assert not called & (others | MODELS | {"torch"})
    assert not scored & others
    assert set(NEEDED["score"]) <= scored


SIZE_A_POLICY = """
from addiffusion.backbones.widths import feature_widths
from addiffusion.config import BackboneSection
feature_widths(BackboneSection())
"""


def test_driver_and_rollout_workers_hold_no_model_before_they_load_one() -> None:
    """A look at the machine comes before Ray is imported, whose environment is set in between."""
    looked, wired = held_after(
        ("python", "import launch.doctor.doctor"), ("python", f"{SIZE_A_POLICY}import launch.runtime.distributed")
    )
    assert not looked & (MODELS | PICTURES | SEARCH | {"ray", "pandas"})
    assert "rollout_workers.runner" in wired
    assert not wired & (MODELS | PICTURES | SEARCH)
