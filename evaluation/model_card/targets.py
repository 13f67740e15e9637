"""What the embedded world should reach, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from addiffusion.embedded.world.scenes import TIERS
from evaluation.model_card.model_card import ModelCard

_STRICT = {1: 0.98, 2: 0.75, 3: 0.50}
_SOFT = {1: 0.98, 2: 0.90, 3: 0.80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One demand on a figure."""

    name: str
    asked: float
    reached: float
    at_least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side."""
        return self.reached >= self.asked if self.at_least else self.reached <= self.asked

    def row(self) -> tuple[str, str, str, str]:
        """Name, what is asked, what is reached, and a mark."""
        sign = "≥" if self.at_least else "≤"
        form = ".3f" if not self.unit else ".1f"
        return (
            self.name,
            f"{sign} {self.asked:g}{self.unit}",
            f"{self.reached:{form}}{self.unit}",
            "met" if self.met else "**not met**",
        )


def targets(card: ModelCard) -> tuple[Target, ...]:
    """Every target of the card, in the order of the page."""
    return tuple(_all(card))


def _all(card: ModelCard) -> Iterator[Target]:
    for tier in TIERS:
        yield Target(name=f"strict, tier {tier}", asked=_STRICT[tier], reached=card.quality[f"strict_tier{tier}"])
    for tier in TIERS:
        yield Target(name=f"soft, tier {tier}", asked=_SOFT[tier], reached=card.quality[f"soft_tier{tier}"])
    yield Target(name="autoencoder, strict", asked=0.97, reached=card.autoencoder["strict"])
    yield Target(name="checker on clean renders, strict", asked=0.99, reached=card.autoencoder["clean_strict"])
    yield Target(name="CLIP, R@1 of 100", asked=0.9, reached=card.scorers["clip"]["r_at_1_of_100"])
    yield Target(name="CLIP, above hard negatives", asked=0.9, reached=card.scorers["clip"]["hard_negative"])
    yield Target(
        name="preference, clean above corrupted",
        asked=0.95,
        reached=card.scorers["preference"]["clean_above_corrupted"],
    )
    for steps, tier, asked in ((5, 1, 0.03), (5, 3, 0.10), (10, 3, 0.03)):
        if steps in card.plan.few_steps:
            yield Target(name=f"DDIM-{steps} loses, tier {tier}", asked=asked, reached=card.loss(steps, tier))
    yield Target(name="guided step, one core", asked=15, reached=card.cost["cfg_step_ms"], at_least=False, unit=" ms")
    share = card.cost["preview_and_scores_over_step"]
    yield Target(name="preview and all scorers over a guided step", asked=0.333, reached=share, at_least=False)
    yield Target(name="weights", asked=40, reached=card.weights_mb, at_least=False, unit=" MB")
    yield Target(name="loading", asked=2, reached=card.cost["load_s"], at_least=False, unit=" s")
