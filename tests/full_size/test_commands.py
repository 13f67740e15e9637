"""Full-size models with random weights: the documented commands on SD 1.5, image and training of the other families.

`uv run just full-size`: 34 GB of disk (8 for SD 1.5 alone), 20 GB of memory; docs/full_size.md says how long.
ADDIFFUSION_FULL_SIZE names a folder where the weights are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from launch.bench.engine import ROWS
from scripts import full_size_weights
from scripts.full_size.models import Order
from tests.full_size.processes import Command, kill_one, run

pytestmark = [pytest.mark.fullsize, pytest.mark.timeout(4 * 3600)]

MODELS = ("sd15", "taesd", "clip", "aesthetic", "dino", "image_reward")
PROMPTS = (
    ("a red circle", "Abstract", "Basic"), ("a photo of a cat", "Animals", "Basic"),
    ("two dogs playing chess in the snow", "Animals", "Quantity"),
    ("a blue cube on top of a green sphere", "Abstract", "Properties & Positioning"),
    ("the word START written in chalk", "Abstract", "Writing & Symbols"),
    ("a robot painted as graffiti on a brick wall", "Artifacts", "Imagination"),
    ("a bowl of soup", "Food & Beverage", "Basic"),
    ("a street in Paris seen from above", "Outdoor Scenes", "Perspective"),
    ("a portrait of an old man with a long beard", "People", "Simple Detail"),
    ("a train crossing a bridge at dawn, oil on canvas", "Vehicles", "Complex"),
)  # fmt: skip
SMALL = (
    "backbone.image_size=64", "sampler.num_steps=3", "sampler.warmup_steps=1", "sampler.finish_steps=1",
    "rollout.slots=2", "scorers.batch_images=1",
)  # fmt: skip
"""Few pixels, steps and images: models and code paths are whole, and a CPU gets through."""
TRAIN = (
    "ppo.iterations=2", "ppo.batch_size=2", "prompts.train_count=2", "evaluation.prompt_count=1",
    "evaluation.static_steps=2", "checkpoint.every=1", "run.film_strips=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights' configuration and a file of prompts."""
    folder = tmp_path_factory.mktemp("full_size")
    weights = weights_in(folder)
    full_size_weights.write(weights, MODELS, Order(), Console())
    rows = ["\t".join((*row, "")) for row in PROMPTS]
    (folder / "PartiPrompts.tsv").write_text("\n".join(["Prompt\tCategory\tChallenge\tNote", *rows, ""]))
    config_file(folder, "sd15", kind="stable_diffusion")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "token")
    return folder


def config_file(place: Path, name: str, *, kind: str) -> str:
    """Name of a configuration that says where weights and prompts are, as a person would write it."""
    weights = weights_in(place)
    tree = {
        "backbone": {"kind": kind, "path": str(weights / name)},
        "scorers": {
            "clip": {"weights": str(weights / "clip/open_clip_model.safetensors")},
            "aesthetic": {"weights": str(weights / "aesthetic/sac+logos+ava1-l14-linearMSE.pth")},
            "dino": {"weights": str(weights / "dino/model.safetensors")},
            "image_reward": {
                "weights": str(weights / "image_reward/ImageReward.pt"),
                "tokenizer": str(weights / "image_reward/vocab.txt"),
            },
        },
        "prompts": {"source": str(place / "PartiPrompts.tsv")},
    }
    (place / f"{name}.yaml").write_text(json.dumps(tree, indent=1))
    return f"{name}.yaml"


def weights_in(folder: Path) -> Path:
    return Path(os.environ.get("ADDIFFUSION_FULL_SIZE", folder / "weights"))


def call(
    place: Path, *words: str, minutes: float = 60, while_running: Callable[[Command], bool] = lambda _: True
) -> Command:
    return run(words, folder=place, timeout_s=60 * minutes, while_running=while_running)


def ok(command: Command) -> str:
    assert command.code == 0, command.output[-3000:]
    return command.output


@pytest.mark.parametrize(
    ("name", "order", "mode"),
    [
        ("sdxl", Order(fp16=True), "ray"),
        ("sd3", Order(t5=False), "serial"),
        ("flux", Order(flux_blocks=(2, 2)), "serial"),
    ],
)
def test_each_other_family_draws_and_trains(name: str, order: Order, mode: str, place: Path) -> None:
    """In bfloat16, as the family's file says; with one worker, and in one process where three take too much memory."""
    full_size_weights.write(weights_in(place), [name], order, Console())
    config = ("-c", config_file(place, name, kind=name))
    ok(call(place, "sample", "a photo of a cat", "-o", f"{name}.png", *config, *SMALL))
    image = Image.open(place / f"{name}.png")
    assert image.size == (64, 64)
    assert np.ptp(np.asarray(image)) > 0
    ok(
        call(
            place, "train", *config, *SMALL, *TRAIN, f"run.dir=run-{name}", f"cluster.mode={mode}", "rollout.workers=1"
        )
    )
    assert json.loads((place / f"run-{name}/result.json").read_text())["iterations"] == 2


def test_doctor(place: Path) -> None:
    report = json.loads(ok(call(place, "doctor", "--json", "--no-smoke", "-c", "sd15.yaml", *SMALL)))
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["backbone stable_diffusion"]["parameters"] == pytest.approx(1_066_000_000, rel=0.001)


def test_sample(place: Path) -> None:
    ok(call(place, "sample", "a photo of a cat", "-o", "cat.png", "-c", "sd15.yaml", *SMALL))
    assert Image.open(place / "cat.png").size == (64, 64)


def test_score(place: Path) -> None:
    Image.effect_noise((64, 64), 60).convert("RGB").save(place / "noise.png")
    said = ok(call(place, "score", "noise.png", "-p", "a photo of a cat", "-c", "sd15.yaml", "-s", SMALL[-1]))
    assert "image_reward" in said


def test_bench_engine(place: Path) -> None:
    """On SD 1.5's shape at 64 pixels: every contestant, one image at a time."""
    few = ("--size=64", "--slots=1", "--rounds=1", "--seconds=0.01", "--set-images=0", "--ticks=4")
    found = json.loads(ok(call(place, "bench", "engine", "--backbone=sd15-random", *few, "--json")).splitlines()[-1])
    assert min(found[f"{name}_nfe_s"] for name in ROWS) > 0  # no more: a pass each, beside whatever else there is


def test_bank(place: Path) -> None:
    ok(call(place, "bank", "build", "bank", "-c", "sd15.yaml", "--count", "1", *SMALL, "cluster.mode=serial"))
    ok(call(place, "bank", "info", "bank"))


def test_training_survives_the_loss_of_a_worker_and_of_its_driver(place: Path) -> None:
    killed: list[str] = []

    def hurt(command: Command) -> bool:
        """A worker once references are drawn; the driver once there is a checkpoint."""
        if not killed and (place / "run/references/000000.npz").exists() and kill_one(command, "ray::DiffusionRunner"):
            killed.append("worker")
        if killed and (place / "run/checkpoints/iteration-000001").is_dir():
            return kill_one(command, "addiffusion")
        return False

    first = call(place, "train", "-c", "sd15.yaml", *SMALL, *TRAIN, "run.dir=run", while_running=hurt)
    assert killed == ["worker"], first.output[-3000:]
    assert first.code != 0
    ok(call(place, "train", "resume=run"))
    result = json.loads((place / "run/result.json").read_text())
    assert result["iterations"] == 2


def test_evaluate_report_and_export(place: Path) -> None:
    quick = ("--quick", "--limit", "1")
    ok(call(place, "evaluate", "--policy", "run", "--out", "evaluation", *quick, "cluster.mode=serial"))
    drawn = json.loads((place / "evaluation/summary.json").read_text())
    assert drawn["images"] == 1
    ok(call(place, "report", "run", "--comparison", "evaluation", "--out", "report.html", "--films", "1"))
    ok(call(place, "export", "run", "--out", "exported"))
    assert (place / "exported/policy.safetensors").is_file()
