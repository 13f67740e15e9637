"""Guidance of the literature that changes the sampling loop itself, run by diffusers' own pipelines, image by image.

Self-attention guidance: arXiv:2210.00939. Attend-and-Excite: arXiv:2301.13826.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite.pipeline_stable_diffusion_attend_and_excite import (  # noqa: E501 - diffusers' own path
    StableDiffusionAttendAndExcitePipeline,
)
from diffusers.pipelines.deprecated.stable_diffusion_sag.pipeline_stable_diffusion_sag import StableDiffusionSAGPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.backbones.conditions import check_conditions
from addiffusion.backbones.loading import load_pipeline
from addiffusion.backbones.lora import fuse_lora
from addiffusion.backbones.solvers import solver_of
from addiffusion.config import BackboneSection, SamplerSection
from addiffusion.devices import resolve_device
from addiffusion.errors import ConfigError
from addiffusion.quiet_loading import quiet_loading
from addiffusion.seeds import generator

Guidance = Literal["self-attention-guidance", "attend-and-excite"]
_CLASSES: dict[str, Any] = {
    "self-attention-guidance": StableDiffusionSAGPipeline,
    "attend-and-excite": StableDiffusionAttendAndExcitePipeline,
}
_NO_SUBJECTS = frozenset(
    {"a", "an", "the", "of", "and", "in", "on", "at", "with", "to", "is", "are"}
    | {"left", "right", "above", "below", "top", "bottom", "center"}
)
"""Words that name nothing an image could show by attending to them."""
_OWN_SIZE, _OWN_RESOLUTION = 64, 16
"""Side of SD 1.5's latents, and of the attention maps Attend-and-Excite reads there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedImage:
    """One image and what it took."""

    image: UInt8[np.ndarray, "h w 3"]
    network_evals: int
    """Rows that went through the network, passes for gradients included."""


class GuidedPipeline:
    """A family's pipeline with another loop. It starts from the same noise as the engine does for the same seed."""

    def __init__(self, guidance: Guidance, section: BackboneSection, *, pipeline: Any | None = None) -> None:
        """Load the model, or take a loaded ``pipeline`` (a StableDiffusionPipeline; its network is changed).

        Raises:
            ConfigError: the model is of another family.
            WeightsError: it can't be loaded.
        """
        if section.kind not in ("embedded", "stable_diffusion"):
            raise ConfigError(
                f"{guidance} works on Stable Diffusion 1 and 2 (and the embedded model), not on {section.kind}.",
                kind=section.kind,
            )
        self._guidance: Guidance = guidance
        self._scale = section.guidance_scale
        own = pipeline or load_pipeline(section, StableDiffusionPipeline, requires_safety_checker=False)
        check_conditions(own.unet.config)
        if section.lora is not None:
            fuse_lora(own, section.lora)
        names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
        parts = {name: getattr(own, name) for name in names}
        with quiet_loading():
            self._pipeline = _CLASSES[guidance](
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            ).to(resolve_device(section.device, key="backbone.device"))
        self._pipeline.set_progress_bar_config(disable=True)
        self._own_scheduler = own.scheduler
        self._rows = 0
        self._pipeline.unet.register_forward_pre_hook(self._count, with_kwargs=True)

    def draw(self, prompt: str, *, seed: int, sampler: SamplerSection) -> GuidedImage:
        """One image by ``sampler.num_steps`` steps of its solver.

        Raises:
            ConfigError: the solver does not fit.
        """
        self._pipeline.scheduler = solver_of(self._own_scheduler, sampler)
        self._rows = 0
        unet = self._pipeline.unet
        shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        noise = torch.randn(shape, generator=generator(seed, "latent"))[None]
        drawn = self._pipeline(
            prompt,
            num_inference_steps=sampler.num_steps,
            guidance_scale=self._scale,
            latents=noise.to(unet.dtype),
            output_type="np",
            **self._options(prompt, shape[-1]),
        )
        pixels: NDArray[Any] = drawn.images[0]
        return GuidedImage(image=np.round(pixels * 255).astype(np.uint8), network_evals=self._rows)

    def _options(self, prompt: str, size: int) -> dict[str, Any]:
        if self._guidance == "self-attention-guidance":
            return {}
        resolution = _OWN_RESOLUTION if size >= _OWN_SIZE else size // 2
        return {"token_indices": self._subjects(prompt), "attn_res": (resolution, resolution)}

    def _subjects(self, prompt: str) -> list[int]:
        """Tokens of words that name something; the first word where none does."""
        tokens: dict[int, str] = self._pipeline.get_indices(prompt)
        words = {index: token.removesuffix("</w>") for index, token in tokens.items() if not token.startswith("<|")}
        return [index for index, word in words.items() if word.isalnum() and word not in _NO_SUBJECTS] or [1]

    def _count(self, _network: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        sample: Tensor = arguments[0] if arguments else named["sample"]
        self._rows += sample.shape[0]
