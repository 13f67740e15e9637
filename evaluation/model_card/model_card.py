"""All figures of the card, in one pass over the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from addiffusion.embedded.world.scenes import TIERS
from evaluation.model_card.cost import Figures, measure_cost, weights_mb
from evaluation.model_card.curves import Curves, measure_curves
from evaluation.model_card.drawing import CardRunner
from evaluation.model_card.plan import Advance, CardPlan, ignore
from evaluation.model_card.progress import ScoreProgress, measure_progress
from evaluation.model_card.quality import measure_autoencoder, measure_quality, measure_scorers


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What was measured."""

    plan: CardPlan
    guidance: float
    """Best scale of classifier-free guidance on the validation prompts."""
    quality: Figures
    autoencoder: Figures
    scorers: dict[str, Figures]
    curves: Curves
    progress: tuple[ScoreProgress, ...]
    cost: Figures
    weights_mb: float

    def loss(self, steps: int, tier: int) -> float:
        """Share of the full run's scene score that DDIM with ``steps`` steps loses at the best guidance scale."""
        return 1 - self.quality[f"ddim{steps}_soft_tier{tier}"] / self.quality[f"soft_tier{tier}"]

    def done(self, tier: int) -> tuple[float, float, float, float]:
        """Means and spreads over prompts of the step of first and of lasting arrival: (first, +-, settled, +-)."""
        run = next(run for run in self.curves.full if (run.guidance, run.tier) == (self.guidance, tier))
        spreads = [(float(np.mean(steps)), float(np.std(steps))) for steps in (run.first, run.settled)]
        return *spreads[0], *spreads[1]

    def as_json(self) -> dict[str, Any]:
        """One flat object of the headline figures, and everything else below ``curves``."""
        flat: dict[str, Any] = {"guidance": self.guidance, "weights_mb": self.weights_mb, **self.quality, **self.cost}
        flat |= {f"autoencoder_{name}": value for name, value in self.autoencoder.items()}
        for scorer, figures in self.scorers.items():
            flat |= {f"{scorer}_{name}": value for name, value in figures.items()}
        for tier in TIERS:
            first, first_std, settled, settled_std = self.done(tier)
            flat |= {f"first_step_tier{tier}": first, f"first_step_std_tier{tier}": first_std}
            flat |= {f"settled_step_tier{tier}": settled, f"settled_step_std_tier{tier}": settled_std}
            flat |= {f"ddim{steps}_loss_tier{tier}": self.loss(steps, tier) for steps in self.plan.few_steps}
        flat |= {f"unit_{score.name}": score.unit for score in self.progress}
        full = [
            {**asdict(run), **{name: getattr(run, name).tolist() for name in ("soft", "clip", "first", "settled")}}
            for run in self.curves.full
        ]
        flat["curves"] = {"static": [asdict(point) for point in self.curves.static], "full": full}
        return flat


def measure_card(plan: CardPlan, advance: Advance = ignore) -> tuple[ModelCard, CardRunner]:
    """Everything but the pictures; the runner is returned so that they are drawn with the same weights.

    Raises:
        WeightsError: a part of the weights is missing.
    """
    cost = measure_cost(plan)
    runner = CardRunner(plan, advance)
    guidance, quality = measure_quality(runner)
    card = ModelCard(
        plan=plan,
        guidance=guidance,
        quality=quality,
        autoencoder=measure_autoencoder(plan),
        scorers=measure_scorers(plan),
        curves=measure_curves(runner),
        progress=measure_progress(runner, guidance),
        cost=cost,
        weights_mb=weights_mb(plan.weights),
    )
    return card, runner
