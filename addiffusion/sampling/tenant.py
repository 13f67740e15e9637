"""What an episode owns in its slot, and an episode as it stood at one of its decisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from addiffusion.sampling.slots import SlotState


@dataclass(slots=True, kw_only=True)
class Tenant:
    """What an episode owns beside its latent."""

    seed: int
    words: Bool[Tensor, " token"]
    """Tokens that are words of the prompt, on the backbone's device."""
    refine_noise: torch.Generator
    solver_noise: torch.Generator
    mask: Tensor | None = None
    attention_entropy: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An episode at a decision, to come back to (``Engine.keep``)."""

    state: SlotState
    latents: tuple[Tensor, Tensor, Tensor]
    solver_noise: Tensor
    """State of the episode's own stream of solver noise."""
