"""The port between a diffusion model and everything that samples from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEmbedding:
    """One encoded prompt, on the CPU."""

    hidden: Float[Tensor, "token width"]
    """Text encoder states the denoiser attends to, float32."""
    keep: Bool[Tensor, " token"]
    """Tokens that are words of the prompt: neither special nor padding."""
    pooled: Float[Tensor, " pool"] | None = None
    """One vector for the whole prompt, for the networks that take one, float32."""


@runtime_checkable
class Scheduler(Protocol):
    """What every diffusers scheduler has; a solver table checks its kind before it uses more."""

    timesteps: Tensor

    @property
    def config(self) -> Mapping[str, Any]:
        """The scheduler's options by name."""
        ...

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Lay out a schedule of so many steps."""
        ...


@runtime_checkable
class PassRecord(Protocol):
    """One pass through the network, looked into afterwards: nothing is computed before it is asked for.

    It holds the pass's activations, so keep no more of them than needed. The maps of a row do not depend on which other
    rows are asked for with it, on a CPU bitwise so.
    """

    def attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row token h w"]:
        """How pixels of some rows attend to each token, mean over heads and layers, resized to latent resolution."""
        ...

    def self_attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row h w"]:
        """How much each pixel of some rows is attended to by the others in the middle of the network, resized."""
        ...

    def middle_features(self) -> Float[Tensor, "b width"]:
        """What the middle of the network put out, mean over pixels, float32."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A frozen latent diffusion model.

    Row ``j`` of a result depends on row ``j`` of its arguments alone, and bitwise so on a CPU as long as the number of
    rows stays the same.
    """

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of a latent."""
        ...

    @property
    def image_size(self) -> int:
        """Height of a decoded image in pixels; its width too, unless it was asked for otherwise."""
        ...

    @property
    def device(self) -> torch.device:
        """Where latents and the network live."""
        ...

    @property
    def scheduler(self) -> Scheduler:
        """A fresh copy of the diffusers scheduler the model came with."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[PromptEmbedding, ...]:
        """Encode prompts; each embedding is independent of what else is asked."""
        ...

    def uncond(self) -> PromptEmbedding:
        """The embedding of the empty prompt, for classifier-free guidance."""
        ...

    def denoise(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """One pass through the network.

        Args:
            z: noisy latents, float32.
            t: training timestep of each row.
            hidden: what each row attends to.
            pooled: the prompts' vectors, where the model's embeddings have them.

        Returns:
            The raw network output (eps, v or sample: the scheduler knows), float32.
        """
        ...

    def last_pass(self) -> PassRecord:
        """What the last ``denoise`` call can be asked about; later calls do not change it.

        Raises:
            ContractError: nothing was denoised yet.
        """
        ...

    @property
    def middle_width(self) -> int:
        """Width of a record's ``middle_features``."""
        ...

    def decode(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """Decode clean latents to the images (b, H, W, 3) that are returned."""
        ...

    @property
    def previews(self) -> bool:
        """Whether ``preview`` is a cheaper decoder than ``decode``; without one they are the same."""
        ...

    def preview(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """Decode clean latents to images (b, H, W, 3) that are only looked at on the way."""
        ...
