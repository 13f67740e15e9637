"""Any diffusers StableDiffusionPipeline, from the tiny embedded one to SD 1.5, behind the backbone port."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers.utils import logging as transformers_logging

from addiffusion.backbones.attention import UNetRecorder
from addiffusion.backbones.base import PromptEmbedding, Scheduler
from addiffusion.config import BackboneSection
from addiffusion.devices import resolve_device
from addiffusion.embedded.assets import weights_path
from addiffusion.errors import ConfigError, WeightsError

TEXT_BATCH = 8
"""Prompts per pass of the text encoder, always: an embedding must not depend on how many were asked for."""
DECODE_BATCH = 16
"""Most latents per pass of the decoder."""
CACHED_PROMPTS = 512
"""Embeddings kept (236 kB each for SD 1.5)."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class StableDiffusionBackbone:
    """UNet, autoencoder and text encoder of a StableDiffusionPipeline. Only the UNet runs in reduced precision."""

    def __init__(self, pipeline: StableDiffusionPipeline, *, device: torch.device, dtype: torch.dtype) -> None:
        self._pipeline: Any = pipeline
        _check_channels(self._pipeline)
        self._unet: Any = self._pipeline.unet.to(device=device, dtype=dtype).eval()
        self._vae: Any = self._pipeline.vae.to(device=device, dtype=torch.float32).eval()
        self._pipeline.text_encoder.to(device=device, dtype=torch.float32).eval()
        self._device, self._dtype = device, dtype
        self._attention = UNetRecorder(self._unet)
        self._embeddings: OrderedDict[str, PromptEmbedding] = OrderedDict()

    @classmethod
    def from_section(cls, section: BackboneSection) -> StableDiffusionBackbone:
        """Load the pipeline a configuration names.

        Raises:
            WeightsError: the folder or hub id can't be loaded.
            ConfigError: the pipeline's UNet is not a plain text-to-image one.
        """
        source = section.path if section.path is not None else weights_path("pipeline")
        device, dtype = resolve_device(section.device, key="backbone.device"), _DTYPES[section.dtype]
        with _quiet():
            return cls(_load(source), device=device, dtype=dtype)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of a latent."""
        size = self._unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self._unet.config.in_channels, height, width

    @property
    def image_size(self) -> int:
        """Side of a decoded image in pixels."""
        return self.latent_shape[2] * self._pipeline.vae_scale_factor

    @property
    def device(self) -> torch.device:
        """Where latents and the network live."""
        return self._device

    @property
    def scheduler(self) -> Scheduler:
        """A fresh copy of the pipeline's own scheduler."""
        return copy.deepcopy(self._pipeline.scheduler)

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[str]) -> tuple[PromptEmbedding, ...]:
        """Encode prompts; each embedding is independent of what else is asked, and cached."""
        known = {text: self._embeddings[text] for text in prompts if text in self._embeddings}
        missing = list(dict.fromkeys(text for text in prompts if text not in known))
        for start in range(0, len(missing), TEXT_BATCH):
            batch = missing[start : start + TEXT_BATCH]
            known.update(zip(batch, self._encode_batch(batch), strict=True))
        self._remember({text: known[text] for text in prompts})
        return tuple(known[text] for text in prompts)

    def uncond(self) -> PromptEmbedding:
        """The embedding of the empty prompt."""
        return self._uncond

    @cached_property
    def _uncond(self) -> PromptEmbedding:
        return self.encode_prompts([""])[0]

    def _encode_batch(self, prompts: list[str]) -> list[PromptEmbedding]:
        padded = prompts + [""] * (TEXT_BATCH - len(prompts))
        hidden = self._pipeline.encode_prompt(padded, self._device, 1, do_classifier_free_guidance=False)[0]
        tokenizer = self._pipeline.tokenizer
        tokens = tokenizer(
            padded, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        special = torch.isin(tokens.input_ids, torch.tensor(tokenizer.all_special_ids))
        keep = tokens.attention_mask.bool() & ~special
        rows = zip(hidden.float().cpu(), keep, strict=True)
        return [PromptEmbedding(hidden=states.clone(), keep=words) for states, words in rows][: len(prompts)]

    def _remember(self, used: dict[str, PromptEmbedding]) -> None:
        for text, embedding in used.items():
            self._embeddings[text] = embedding
            self._embeddings.move_to_end(text)
        while len(self._embeddings) > CACHED_PROMPTS:
            self._embeddings.popitem(last=False)

    @torch.inference_mode()
    def denoise(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None = None,  # noqa: ARG002 - this network takes none
    ) -> Float[Tensor, "b c h w"]:
        """One pass through the UNet: raw output, float32."""
        self._attention.forget()
        z, hidden = z.to(self._dtype), hidden.to(self._dtype)
        return self._unet(z, t, encoder_hidden_states=hidden, return_dict=False)[0].float()

    @torch.inference_mode()
    def attention_maps(self, row: int) -> Float[Tensor, "token h w"]:
        """Cross-attention probabilities of one row of the last pass, mean over heads and layers."""
        return self._attention.maps(row, self.latent_shape[1:])

    @torch.inference_mode()
    def self_attention_map(self, row: int) -> Float[Tensor, "h w"]:
        """How much each pixel of a row of the last pass is attended to by the others."""
        return self._attention.self_map(row, self.latent_shape[1:])

    @torch.inference_mode()
    def middle_features(self) -> Float[Tensor, "b width"]:
        """Mean over pixels of the middle block's output in the last pass."""
        return self._attention.middle()

    @property
    def middle_width(self) -> int:
        """Width of ``middle_features``."""
        return self._unet.config.block_out_channels[-1]

    @property
    def previews(self) -> bool:
        """There is one decoder."""
        return False

    def preview(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """As ``decode``."""
        return self.decode(z0)

    @torch.inference_mode()
    def decode(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """Decode clean latents to images (b, H, W, 3), in equal batches of at most DECODE_BATCH rows."""
        batch = min(len(z0), DECODE_BATCH)
        parts = [self._decode_batch(part, batch) for part in z0.split(batch)]
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _decode_batch(self, z0: Tensor, batch: int) -> Tensor:
        count = len(z0)
        z0 = functional.pad(z0, (0, 0, 0, 0, 0, 0, 0, batch - count))
        image = self._vae.decode(z0 / self._vae.config.scaling_factor, return_dict=False)[0]
        # The rounding of diffusers' VaeImageProcessor, so that images agree with the pipeline's to the last bit.
        return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)[:count]


def _load(source: str | Path) -> StableDiffusionPipeline:
    try:
        return StableDiffusionPipeline.from_pretrained(
            source,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            low_cpu_mem_usage=False,
        )
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"backbone.path={str(source)!r} can't be loaded as a StableDiffusionPipeline ({error}): "
            "give a folder with a model_index.json, or a hub id that can be reached.",
            path=str(source),
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings while a pipeline loads: it is checked here, and it is cast on purpose."""
    libraries = (diffusers_logging, transformers_logging)
    before = [(library, library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, bars in before:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def _check_channels(pipeline: Any) -> None:
    network, latent = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if network != latent:
        raise ConfigError(
            f"The pipeline's UNet takes {network} channels but its autoencoder has {latent}: "
            "only plain text-to-image pipelines can be sampled (no inpainting, no depth).",
            unet_channels=network,
            vae_channels=latent,
        )
