"""Who takes part in a pass, and what passes and decisions do to latents."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Moves:
    """Changes to the latents after a pass or a decision: slots, in order."""

    commit: list[int] = field(default_factory=list[int])
    """Their latent becomes the solver's next one."""
    leap: dict[int, int] = field(default_factory=dict[int, int])
    """Of some who commit, the table row whose step it is, in place of their pass's own."""
    redraw: list[int] = field(default_factory=list[int])
    """Their latent becomes the episode's next noise."""
    refine: list[int] = field(default_factory=list[int])
    """Their latent becomes the input of a refine pass."""
    renoise: list[int] = field(default_factory=list[int])
    """Their refined z0_pred is noised to their schedule point."""

    def add(self, moves: Moves) -> None:
        """Append the changes of another record."""
        self.commit += moves.commit
        self.leap |= moves.leap
        self.redraw += moves.redraw
        self.refine += moves.refine
        self.renoise += moves.renoise

    def drop(self, slot: int) -> None:
        """Take out whatever is to happen to a slot."""
        for slots in (self.commit, self.refine, self.renoise):
            if slot in slots:
                slots.remove(slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Slots that take part in a pass."""

    guided: tuple[int, ...]
    """They take two rows of the network batch."""
    unguided: tuple[int, ...]
    """They take one."""

    @property
    def slots(self) -> tuple[int, ...]:
        """All of them, the guided ones first."""
        return self.guided + self.unguided

    @property
    def rows(self) -> int:
        """Rows of the network batch that they take."""
        return 2 * len(self.guided) + len(self.unguided)
