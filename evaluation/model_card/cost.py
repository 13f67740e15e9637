"""What a step, a decode and a score cost on one core, how large the weights are and how fast they load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from addiffusion.config import ScorersSection
from addiffusion.embedded.models.autoencoder import decode_latents, load_autoencoder
from addiffusion.embedded.models.samples import SceneSampler
from addiffusion.records import ScoreRequest
from addiffusion.scorers.embedded import embedded_suite
from addiffusion.threads import torch_threads
from evaluation.model_card.plan import CardPlan

Figures = dict[str, float]
_CAPTION = "a small red circle left of a large blue star on a striped gray background"


def weights_mb(folder: Path) -> float:
    """Size of all files in units of 10^6 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure_cost(plan: CardPlan) -> Figures:
    """Milliseconds per image on one thread: medians of ``plan.repeats`` with ``plan.slots`` images at once.

    A decision costs a guided step, a preview and the scores; an image one decode more.
    """
    began = time.perf_counter()
    sampler = SceneSampler.from_folder(plan.weights / "pipeline")
    scoring = embedded_suite(ScorersSection(device="cpu", batch_images=plan.slots), plan.weights)
    final, preview = (load_autoencoder(plan.weights / folder) for folder in ("pipeline/vae", "preview"))
    load_s = time.perf_counter() - began
    captions = [_CAPTION] * plan.slots
    noise = sampler.noise(range(plan.slots))
    with torch_threads(1):
        moments = sampler.z0_preds(captions, noise, solver="ddim", steps=plan.repeats + 2, guidance=3.5)
        z0 = next(moments)
        step = _median_ms(lambda: next(moments), plan.repeats) / plan.slots
        decode = _median_ms(lambda: decode_latents(final, z0), plan.repeats) / plan.slots
        look = _median_ms(lambda: decode_latents(preview, z0), plan.repeats) / plan.slots
        images = sampler.decode(z0)
        request = ScoreRequest(images=images, prompts=tuple(captions))
        scoring.score(request)  # texts are read once an episode, so not part of a step
        scores = _median_ms(lambda: scoring.score(request), plan.repeats) / plan.slots
    return {
        "cfg_step_ms": step,
        "decode_ms": decode,
        "preview_ms": look,
        "scores_ms": scores,
        "preview_and_scores_over_step": (look + scores) / step,
        "load_s": load_s,
    }


def _median_ms(work: Callable[[], object], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)
