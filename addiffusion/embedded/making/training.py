"""Trains the embedded world from nothing, part by part: what ``addiffusion embedded train`` runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from addiffusion.devices import resolve_device
from addiffusion.embedded.making.aesthetic_training import AestheticPart
from addiffusion.embedded.making.autoencoder_training import AutoencoderPart
from addiffusion.embedded.making.clip_training import ClipPart
from addiffusion.embedded.making.decoder_training import FINAL_DECODER, PREVIEW_DECODER
from addiffusion.embedded.making.diffusion import DiffusionPart
from addiffusion.embedded.making.dino_training import DinoPart
from addiffusion.embedded.making.part import (
    Part,
    PartReport,
    Progress,
    TrainingBudget,
    TrainingContext,
    ignore_progress,
)
from addiffusion.embedded.making.preference_training import PreferencePart
from addiffusion.embedded.making.text_training import TextPart
from addiffusion.embedded.making.tokenizer_training import TokenizerPart
from addiffusion.errors import ConfigError
from addiffusion.files import append_line, make_folder
from addiffusion.threads import torch_threads

PARTS: Final[tuple[Part, ...]] = (
    TokenizerPart(),
    AutoencoderPart(),
    FINAL_DECODER,
    PREVIEW_DECODER,
    TextPart(),
    DiffusionPart(),
    ClipPart(),
    DinoPart(),
    AestheticPart(),
    PreferencePart(),
)
"""In the order of their needs: each part reads only what parts before it wrote."""
PART_NAMES: Final = tuple(part.name for part in PARTS)


def train_embedded(  # noqa: PLR0913  (keyword-only settings of one command)
    *,
    out: Path,
    parts: Sequence[str] | None = None,
    budget: TrainingBudget | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    checkpoint_every: int = 500,
    log_every: int = 50,
    on_progress: Callable[[Progress], None] = ignore_progress,
) -> tuple[PartReport, ...]:
    """Trains parts of the embedded model into a weights folder, going on where an earlier call was ended.

    The same seed, device, budget and number of threads give the same weights, interrupted or not.

    Args:
        out: folder that gets the layout of the shipped weights (``pipeline``, ``preview``, ``clip``, ``dino``,
            ``aesthetic``, ``preference``); checkpoints, losses and ``reports.jsonl`` lie in ``out/training``, which may
            be deleted afterwards.
        parts: names of PART_NAMES; None is all.
        budget: how much work; None is the full recipe.
        device: where it trains; ``auto`` takes a GPU where there is one.
        seed: of everything random.
        threads: of torch; None is torch's own choice.
        checkpoint_every: steps.
        log_every: steps.
        on_progress: called at each row of the log.

    Raises:
        ConfigError: an unknown part or device.
        CheckpointError: ``out`` holds a checkpoint of other settings, or a corrupt one.
        WeightsError: a part's inputs are missing because the part that makes them was never trained.
    """
    chosen = _choose(parts)
    context = TrainingContext(
        out=out,
        work=out / "training",
        seed=seed,
        device=resolve_device(device, key="--device"),
        budget=budget or TrainingBudget(),
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        on_progress=on_progress,
    )
    with torch_threads(threads or torch.get_num_threads()):
        return tuple(_train(part, context) for part in chosen)


def _choose(names: Sequence[str] | None) -> tuple[Part, ...]:
    unknown = sorted(set(names or ()) - set(PART_NAMES))
    if unknown:
        raise ConfigError(
            f"The embedded world has no part {', '.join(map(repr, unknown))}; choose from {', '.join(PART_NAMES)}.",
            parts=unknown,
        )
    return tuple(part for part in PARTS if names is None or part.name in names)


def _train(part: Part, context: TrainingContext) -> PartReport:
    report = part.train(context)
    make_folder(context.work)
    append_line(context.work / "reports.jsonl", json.dumps(asdict(report)))
    return report
