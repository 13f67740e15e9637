"""The price dial: which price of one NFE gives images of the speed, or the quality, that was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from addiffusion.config import Config
from addiffusion.errors import ArgumentError
from addiffusion.pipeline.card import PolicyCard

Quality = Literal["low", "medium", "high", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceDial:
    """Prices that a policy knows."""

    own: float
    """Where nobody asks for another."""
    least: float
    greatest: float
    """Of those it was trained or measured at."""
    card: PolicyCard | None
    """What images cost at each price, where it was measured."""

    @classmethod
    def of(cls, config: Config, card: PolicyCard | None) -> Self:
        """The dial of a policy.

        Args:
            config: what it was trained with.
            card: its policy card.
        """
        own, trained = config.reward.c_nfe, config.reward.c_nfe_range
        measured = card if card is not None and card.curve else None
        known = [own] if measured is None else [point.c_nfe for point in measured.curve]
        least, greatest = trained or (min(known), max(known))
        return cls(own=own, least=least, greatest=greatest, card=measured)

    def speeds(self, steps: int) -> tuple[float, float] | None:
        """Least and greatest speed that was measured at so many steps; None without a card."""
        return None if self.card is None else self.card.speeds(steps)

    def at_speed(self, speed: float, steps: int) -> float:
        """Price at which images cost so many times less than the full run on average.

        Outside what was measured it is that of the nearest speed, with a warning.

        Raises:
            ArgumentError: nothing was measured.
        """
        if self.card is None:
            raise ArgumentError(
                "`speed` needs a policy card with the measured cost of each price, which this policy has not: give "
                "`c_nfe`, or export the policy again by `addiffusion export`.",
                speed=speed,
            )
        return self.card.price(speed, steps)

    def at_quality(self, quality: Quality) -> float:
        """Price of a point of the dial: high is the least price, low the greatest, medium between them by ratio."""
        medium = math.sqrt(self.least * self.greatest) if self.least > 0 else self.own
        return {"low": self.greatest, "medium": medium, "high": self.least, "auto": self.own}[quality]

    def at_cost(self, cost: float, steps: int) -> float:
        """Price at which images cost so much on average; without a card the own one."""
        if self.card is None:
            return self.own
        least, greatest = self.card.speeds(steps)
        return self.card.price(min(max(steps / cost, least), greatest), steps)

    def expected_cost(self, c_nfe: float, steps: int) -> float | None:
        """Mean cost of images at a price; None where nothing was measured."""
        return None if self.card is None else self.card.cost(c_nfe, steps)
