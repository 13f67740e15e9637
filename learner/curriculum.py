"""Simple prompts first: which entries of the pool an iteration may draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from addiffusion.config.training import CurriculumSection
from addiffusion.errors import ConfigError
from addiffusion.records import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Iterations from ``first_iteration`` on draw from ``tiers``; None draws from all."""

    name: str
    first_iteration: int
    tiers: tuple[int, ...] | None

    def holds(self, prompt: Prompt) -> bool:
        """Whether the stage trains a prompt."""
        return self.tiers is None or prompt.tier in self.tiers


def curriculum_stages(section: CurriculumSection) -> tuple[Stage, ...]:
    """The stages in their order, the last without end; stages of no iteration are left out."""
    simple, mixed = section.simple_iterations, section.mixed_iterations
    stages = (
        Stage(name="simple", first_iteration=0, tiers=(1,)) if simple else None,
        Stage(name="mixed", first_iteration=simple, tiers=(1, 2)) if mixed else None,
        Stage(name="full", first_iteration=simple + mixed, tiers=None),
    )
    return tuple(stage for stage in stages if stage is not None)


def check_curriculum(section: CurriculumSection, prompts: Sequence[Prompt]) -> None:
    """Refuse a curriculum that the training prompts can't feed.

    Raises:
        ConfigError: a stage has no prompt.
    """
    for stage in curriculum_stages(section):
        if not any(stage.holds(prompt) for prompt in prompts):
            raise ConfigError(
                f"curriculum.{stage.name}_iterations needs training prompts of the tiers {list(stage.tiers or ())}, "
                f"but there are only tiers {sorted({prompt.tier for prompt in prompts})}: change prompts.tiers or "
                f"prompts.train_count, or set curriculum.{stage.name}_iterations=0.",
                stage=stage.name,
            )
