"""A small real backbone for engine tests: a coupled nonlinear field, with a meter of the passes each prompt costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.backbones.base import PromptEmbedding

NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TOKENS, WIDTH = 3, 2
LATENT = (2, 8, 8)


def embedding(tag: int) -> PromptEmbedding:
    """A prompt that is a number: 0 is the empty one."""
    return PromptEmbedding(hidden=torch.full((TOKENS, WIDTH), float(tag)), keep=torch.tensor([False, True, tag > 0]))


class MeteredPass:
    def __init__(self, tags: Tensor, asked: list[int]) -> None:
        self._tags, self._asked = tags.clone(), asked

    def attention_maps(self, rows: Sequence[int]) -> Tensor:
        self._asked += rows
        tokens = torch.arange(1, TOKENS + 1).view(-1, 1, 1) + self._tags[list(rows)].view(-1, 1, 1, 1)
        ramp = torch.linspace(0, 1, LATENT[1])[:, None] * torch.linspace(1, 2, LATENT[2])
        return torch.softmax(tokens * ramp, 1)

    def self_attention_maps(self, rows: Sequence[int]) -> Tensor:
        return self.attention_maps(rows)[:, 1] * (1 + self._tags[list(rows)].view(-1, 1, 1))

    def middle_features(self) -> Tensor:
        return self._tags[:, None]


class MeteredBackbone:
    """Counts the passes of each tag: rows at t > 0, where the schedules of these tests keep all real passes."""

    latent_shape = LATENT
    image_size = 8

    def __init__(
        self,
        *,
        prediction: str = "epsilon",
        broken: int | None = None,
        broken_below: float = 0.0,
        scheduler: Any | None = None,
    ) -> None:
        self.device = torch.device("cpu")
        self.passes: Counter[int] = Counter()
        self.calls = 0
        self.shapes: set[tuple[int, ...]] = set()
        self.map_rows: list[int] = []
        """Rows whose attention maps were asked for, in order."""
        self.scheduler = scheduler or DDIMScheduler(
            **NOISE, clip_sample=False, prediction_type=prediction, timestep_spacing="trailing"
        )
        self._broken, self._broken_below = broken, broken_below
        self._tags = torch.zeros(0)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[PromptEmbedding, ...]:
        return tuple(embedding(int(prompt)) for prompt in prompts)

    def uncond(self) -> PromptEmbedding:
        return embedding(0)

    def denoise(self, z: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.shapes.add(tuple(z.shape))
        self._tags = hidden[:, 0, 0]
        self.passes.update(int(tag) for tag, time in zip(self._tags, t, strict=True) if tag > 0 and time > 0)
        u = field(z, t, self._tags)
        if self._broken is not None:
            u[(self._tags == self._broken) & (t < self._broken_below)] = float("nan")
        return u

    middle_width = 1

    def last_pass(self) -> MeteredPass:
        return MeteredPass(self._tags, self.map_rows)

    previews = False

    def preview(self, z0: Tensor) -> NDArray[np.uint8]:
        return self.decode(z0)

    def decode(self, z0: Tensor) -> NDArray[np.uint8]:
        pixels = z0[:, :1].sigmoid().mul(255).round().to(torch.uint8)
        return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()


def field(z: Tensor, t: Tensor, tags: Tensor) -> Tensor:
    """What the network says: neighbours coupled within a row, nothing shared between rows."""
    time, tag = (t / 1000).view(-1, 1, 1, 1), tags.view(-1, 1, 1, 1)
    return torch.tanh(z.roll(1, -1) * (1.2 - time) + 0.1 * tag) + 0.4 * z * time
