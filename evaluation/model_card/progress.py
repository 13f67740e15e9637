"""How each score rises while an image takes shape: what a reward can be made of, and in which units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addiffusion.records import SCORE_NAMES
from evaluation.model_card.drawing import CardRunner, Scores, Setting

SCORES = {"clip": "clip", "aesthetic": "aesthetic", "preference": "image_reward", "dino": "dino"}
"""Rows of the table, and what the scorers call them; ``dino`` is the cosine to the finished image."""
EARLY_SHARE = 0.1
"""The moment whose distance to the end makes the unit: step 5 of 50."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreProgress:
    """Means of one score along the full run."""

    name: str
    means: dict[int, float]
    """By 1-based step."""
    unit: float
    """Spread (standard deviation over prompts) of the final score minus that of the early moment."""


def measure_progress(runner: CardRunner, guidance: float) -> tuple[ScoreProgress, ...]:
    """One entry per score, on the prompts of the curves."""
    plan = runner.plan
    length = plan.full_steps
    early = max(1, round(EARLY_SHARE * length))
    moments = sorted({max(1, round(share * length)) for share in (0.1, 0.2, 0.4, 0.6, 1.0)} | {early})
    prompts = runner.prompts(plan.curve_prompts_per_tier)
    setting = Setting(solver="ddim", steps=length, guidance=guidance)
    batches = [
        {
            moment: runner.judge(runner.sampler.decode(steps[moment - 1]), batch, SCORE_NAMES, ("dino",))
            for moment in moments
        }
        for batch, steps in runner.z0_preds(prompts, setting, "scores")
    ]
    columns = {
        title: {moment: np.concatenate([_column(batch, name, moment) for batch in batches]) for moment in moments}
        for title, name in SCORES.items()
    }
    return tuple(
        ScoreProgress(
            name=name,
            means={moment: float(values.mean()) for moment, values in column.items()},
            unit=float((column[length] - column[early]).std()),
        )
        for name, column in columns.items()
    )


def _column(batch: dict[int, Scores], name: str, moment: int) -> NDArray[np.float64]:
    if name == "dino":
        return (batch[moment]["dino"] * batch[max(batch)]["dino"]).sum(axis=1)
    return batch[moment][name]
