"""A tuning study as a file: what is varied, between which bounds, and what is best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from addiffusion.config.section import Section
from addiffusion.configuration.errors import describe
from addiffusion.configuration.yaml import read_yaml
from addiffusion.errors import ConfigError

_FARTHEST = 1e12

Bound = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]


class Bounds(Section):
    """A number between two bounds."""

    low: Bound
    """Least value."""
    high: Bound
    """Greatest value."""
    log: bool = False
    """Draw its logarithm evenly."""
    integer: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _hold_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("integer needs whole numbers as low and high")
        return self


Domain = Annotated[
    Annotated[Bounds, Tag("bounds")] | Annotated[list[Any], Field(min_length=1), Tag("choices")],
    Discriminator(lambda given: "choices" if isinstance(given, list) else "bounds"),
]


class Objective(Section):
    """What a trial is judged by, on held-out images: a score minus a price per NFE. More is better."""

    score: Literal["reward", "clip", "aesthetic", "image_reward", "scene_soft", "scene_strict"] = "reward"
    """`reward` is the trial's own; the others judge every reward alike."""
    c_nfe: float = Field(default=0.0, ge=0, le=1e6)
    """Price of one NFE; `reward` has its own already."""


class Study(Section):
    """One study."""

    objective: Objective = Objective()
    """What is best."""
    trials: int = Field(default=16, ge=1, le=100_000)
    """Configurations tried."""
    base: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Keys that all trials share."""
    space: Annotated[dict[str, Domain], Field(min_length=1)]
    """Keys that are varied: bounds of a number, or a list to choose from."""


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: the file can't be read, or a key or value can't be used.
    """
    try:
        return Study.model_validate_json(json.dumps(read_yaml(path)))
    except ValidationError as error:
        raise ConfigError(f"study {path}: {describe(error, Study)}", file=str(path)) from error


def as_overrides(values: dict[str, Any]) -> list[str]:
    """``key=value`` as the command line has it."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
