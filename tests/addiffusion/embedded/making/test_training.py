"""The orchestrator: every part at toy size, in order, resumable, with clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from addiffusion.embedded.making.part import PartReport, Progress, TrainingBudget
from addiffusion.embedded.making.training import PART_NAMES, train_embedded
from addiffusion.errors import ConfigError, WeightsError

TINY = TrainingBudget(max_steps=4, max_batch=4, max_pool=4)
KEPT = {".json", ".safetensors"}
GENERATIVE = ("tokenizer", "autoencoder", "decoder", "text", "diffusion")


class KilledError(Exception):
    """Stands for the death of the process."""


def train_tiny(out: Path, *, parts: tuple[str, ...] | None = None, die_in: str = "") -> tuple[PartReport, ...]:
    def watch(progress: Progress) -> None:
        if (progress.part, progress.step) == (die_in, 3):
            raise KilledError

    return train_embedded(
        out=out, parts=parts, budget=TINY, device="cpu", threads=1, checkpoint_every=2, log_every=1, on_progress=watch
    )


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.suffix in KEPT}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights")
    reports = train_tiny(out)
    assert tuple(report.part for report in reports) == PART_NAMES
    return out


def test_all_parts_make_a_complete_weights_folder(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} >= {
        "pipeline",
        "preview",
        "clip",
        "dino",
        "aesthetic",
        "preference",
    }
    pipe = StableDiffusionPipeline.from_pretrained(trained / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=1).images[0].size == (64, 64)


def test_each_part_logs_losses_and_a_report(trained: Path) -> None:
    for part in PART_NAMES[1:]:
        rows = (trained / "training" / part / "losses.jsonl").read_text(encoding="utf-8").splitlines()
        last = json.loads(rows[-1])
        assert last["step"] == TINY.max_steps, part
        assert len(last.keys() - {"step", "lr"}) >= 1, part
    reports = [json.loads(row) for row in (trained / "training" / "reports.jsonl").read_text().splitlines()]
    metrics = {report["part"]: set(report["metrics"]) for report in reports}
    assert {"psnr_db", "strict"} <= metrics["autoencoder"] & metrics["decoder"]
    assert "right" in metrics["text"]
    assert {f"strict_tier{tier}" for tier in (1, 2, 3)} <= metrics["diffusion"]


def test_a_training_killed_twice_goes_on_to_the_same_files(trained: Path, tmp_path: Path) -> None:
    for die_in in ("autoencoder", "decoder", "text", "diffusion"):
        with pytest.raises(KilledError):
            train_tiny(tmp_path, parts=GENERATIVE, die_in=die_in)
    train_tiny(tmp_path, parts=GENERATIVE)
    straight = contents(trained / "pipeline")
    assert contents(tmp_path / "pipeline") == straight
    assert len(straight) >= 9


def test_an_unknown_part_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no part 'clap'; choose from tokenizer, autoencoder"):
        train_embedded(out=tmp_path / "w", parts=["clap"])
    assert not (tmp_path / "w").exists()


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not available here"):
        train_embedded(out=tmp_path, parts=["tokenizer"], device="abacus")


def test_a_part_without_its_inputs_says_what_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="`tokenizer` first"):
        train_tiny(tmp_path, parts=("text",))
    train_tiny(tmp_path, parts=("tokenizer",))
    with pytest.raises(WeightsError, match="`autoencoder` first"):
        train_tiny(tmp_path, parts=("decoder",))
    train_tiny(tmp_path, parts=("autoencoder",))
    with pytest.raises(WeightsError, match="`text` first"):
        train_tiny(tmp_path, parts=("diffusion",))
