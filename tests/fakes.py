"""Small real implementations behind the ports: a closed-form diffusion model and a deterministic scorer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion import seeds
from addiffusion.backbones.base import PromptEmbedding, Scheduler
from addiffusion.errors import ContractError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Prompt, ScoreReply, ScoreRequest

TOKENS, TEXT_WIDTH = 5, 4
MODE_STD = 0.3
UNSCORABLE = "unscorable"
"""A prompt with this word gets an error instead of scores."""
DIVERGENT = "divergent"
"""A prompt with this word drives the toy denoiser to NaN."""


def make_prompt(prompt_id: int, text: str | None = None) -> Prompt:
    """A prompt of tier 1 with a text of its own."""
    return Prompt(prompt_id=prompt_id, text=f"toy scene {prompt_id}" if text is None else text, tier=1)


class ToyPass:
    """What rows attended to is a function of their prompt."""

    def __init__(self, hidden: Tensor, middle: Tensor, shape: tuple[int, int, int]) -> None:
        self._hidden, self._middle, self._shape = hidden.clone(), middle, shape

    def attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row token h w"]:
        """A ramp per token whose direction depends on what the row attended to."""
        _, height, width = self._shape
        ramp = torch.linspace(0, 1, height)[:, None] * torch.linspace(1, 2, width)[None]
        tokens = self._hidden[list(rows)].mean(2).abs() + torch.arange(1, TOKENS + 1)
        return torch.softmax(tokens[:, :, None, None] * ramp, dim=1)

    def self_attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row h w"]:
        """The map of the first word."""
        return self.attention_maps(rows)[:, 1]

    def middle_features(self) -> Float[Tensor, "b width"]:
        """Mean text and mean latent."""
        return self._middle


def _scheduler() -> Scheduler:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # noqa: PLC0415 - seconds, which scorers need not

    return cast("Scheduler", DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1))


@cache
def _alphas_cumprod() -> Tensor:
    """Of the same scheduler, whose making takes longer than a pass."""
    return _scheduler().alphas_cumprod


class ToyBackbone:
    """The optimal denoiser of a two-mode Gaussian mixture, in closed form; a real diffusers DDIM scheduler.

    The prompt moves the modes: latents are distributed as 1/2 N(mu, s^2) + 1/2 N(-mu / 2, s^2), with one mu per
    channel taken from the prompt's hidden states. Elementwise but for one sum per row, so rows do not mix.
    """

    latent_shape = (4, 8, 8)
    image_size = 16

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.denoise_calls = 0
        self.decode_calls = 0
        self._pass: ToyPass | None = None

    @property
    def scheduler(self) -> Scheduler:
        return _scheduler()

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[PromptEmbedding, ...]:
        return tuple(self._encode(prompt) for prompt in prompts)

    def uncond(self) -> PromptEmbedding:
        return PromptEmbedding(hidden=torch.zeros(TOKENS, TEXT_WIDTH), keep=torch.zeros(TOKENS, dtype=torch.bool))

    def denoise(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """eps of the posterior mean E[z0 | z_t]: each mode's linear posterior, weighted by its responsibility."""
        self.denoise_calls += 1
        self._pass = ToyPass(hidden, torch.cat([hidden.mean(1), z.mean((2, 3))], dim=1), self.latent_shape)
        alpha_bar = _alphas_cumprod()[t.long()].view(-1, 1, 1, 1)
        mu = hidden.mean(1)[:, :, None, None]
        variance = alpha_bar * MODE_STD**2 + 1 - alpha_bar
        modes = (mu, -mu / 2)
        residuals = [z - alpha_bar.sqrt() * mode for mode in modes]
        means = [
            mode + alpha_bar.sqrt() * MODE_STD**2 / variance * res for mode, res in zip(modes, residuals, strict=True)
        ]
        log_odds = ((residuals[1] ** 2 - residuals[0] ** 2) / (2 * variance)).sum((1, 2, 3), keepdim=True) / 64
        weight = torch.sigmoid(log_odds)
        z0 = weight * means[0] + (1 - weight) * means[1]
        return (z - alpha_bar.sqrt() * z0) / (1 - alpha_bar).sqrt()

    def last_pass(self) -> ToyPass:
        if self._pass is None:
            raise ContractError("last_pass needs a denoise call first.")
        return self._pass

    middle_width = 2 * TEXT_WIDTH

    previews = False

    def preview(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """As ``decode``."""
        return self.decode(z0)

    def decode(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """The first three channels, each pixel doubled."""
        self.decode_calls += 1
        pixels = ((z0[:, :3] / 4 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3).permute(0, 2, 3, 1).contiguous().numpy()

    def _encode(self, prompt: str) -> PromptEmbedding:
        hidden = torch.randn(TOKENS, TEXT_WIDTH, generator=seeds.generator(prompt, "toy text"))
        if DIVERGENT in prompt:
            hidden = torch.full_like(hidden, float("nan"))
        return PromptEmbedding(hidden=hidden, keep=torch.tensor([False, True, True, True, False]))


class ToyScoring:
    """Scores that are smooth functions of an image's colours, one image at a time."""

    names = (*SCORE_NAMES, *METRIC_NAMES)
    clip_width = 12
    dino_width = 6

    def __init__(self) -> None:
        self.requests: list[ScoreRequest] = []

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([_unit(_noise(self.clip_width, prompt, "toy clip text")) for prompt in prompts])

    def score(self, request: ScoreRequest) -> ScoreReply:
        if len(request.images) != len(request.prompts):
            raise ContractError(f"{len(request.images)} images but {len(request.prompts)} prompts.")
        self.requests.append(request)
        errors = tuple(f"{p!r} is {UNSCORABLE}." if UNSCORABLE in p else None for p in request.prompts)
        clip = np.stack([_unit(_colours(image, self.clip_width, "toy clip image")) for image in request.images])
        dino = np.stack([_unit(_colours(image, self.dino_width, "toy dino")) for image in request.images])
        text = self.embed_text(request.prompts)
        columns = [self._column(name, request.images, clip, text) for name in request.names]
        values = np.stack(columns, axis=1) if columns else np.zeros((len(request.images), 0), np.float32)
        values[[error is not None for error in errors]] = np.nan
        return ScoreReply(names=request.names, values=values, clip_embedding=clip, dino_embedding=dino, errors=errors)

    def _column(
        self, name: str, images: NDArray[np.uint8], clip: NDArray[np.float32], text: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        cosine = (clip * text).sum(axis=1)
        spread = images.reshape(len(images), -1).astype(np.float64).std(axis=1) / 255
        values = (cosine, 5 + spread, cosine - spread, cosine**2, cosine > 0)
        columns: dict[str, NDArray[np.float64]] = dict(zip((*SCORE_NAMES, *METRIC_NAMES), values, strict=True))
        return np.asarray(columns[name], np.float32)


def _colours(image: NDArray[np.uint8], width: int, purpose: str) -> NDArray[np.float64]:
    """A fixed random view of the image at 4 x 4 pixels."""
    side = image.shape[0] // 4
    small = image.astype(np.float64).reshape(4, side, 4, side, 3).mean(axis=(1, 3)).reshape(-1) / 255 - 0.5
    view = _noise(small.size * width, purpose).reshape(width, small.size)
    return (view * small).sum(axis=1) + 0.1


def _noise(size: int, *parts: str) -> NDArray[np.float64]:
    return torch.randn(size, generator=seeds.generator(*parts), dtype=torch.float64).numpy()


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vector / np.sqrt((vector**2).sum())).astype(np.float32)
