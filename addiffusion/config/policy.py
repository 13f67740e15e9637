"""The section about the policy: its networks, and what it may do."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from addiffusion.config.section import Section

Probability = Annotated[float, Field(gt=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=16_384)]


class PolicySection(Section):
    """Policy and value networks."""

    hidden: Annotated[tuple[Width, ...], Field(max_length=16)] = (512, 256)
    """Widths of the hidden layers of policy and value network."""
    prior: tuple[Probability, ...] = (0.88, 0.06, 0.06)
    """Probabilities of continue, stop and refine before training: they must see late steps to learn about them. Six
    name those of leap, unguided and redraw too, which otherwise have 0.02 each where they are among `actions`."""

    actions: tuple[Literal["continue", "stop", "refine", "leap", "unguided", "redraw"], ...] = (
        "continue",
        "stop",
        "refine",
    )
    """Actions the policy may take; `[continue, stop]` is the simple form, and what a trajectory bank can replay. `leap`
    needs `sampler.leap_steps`, `unguided` a guided model."""

    @model_validator(mode="after")
    def _can_go_on_and_end(self) -> Self:
        if not {"continue", "stop"} <= set(self.actions):
            raise ValueError("actions must hold continue and stop")
        return self

    @model_validator(mode="after")
    def _prior_is_a_distribution(self) -> Self:
        if len(self.prior) not in (3, 6):
            raise ValueError("prior must have 3 probabilities, or 6 for all actions")
        if abs(sum(self.prior) - 1.0) > 1e-6:
            raise ValueError("prior must sum to 1")
        return self
