"""What all diffusers pipelines share behind the backbone port; a family adds its text encoders and its network call."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from addiffusion.backbones.attention import AttentionRecorder
from addiffusion.backbones.base import PassRecord, PromptEmbedding, Scheduler
from addiffusion.backbones.decoder import LatentDecoder, check_channels, check_preview
from addiffusion.backbones.loading import load_pipeline, load_preview
from addiffusion.backbones.placement import DTYPES, claim, compiled, own_placement, wanted_placement
from addiffusion.backbones.prompt_cache import PromptCache, Reader
from addiffusion.backbones.sizes import ImageSize, LatentSides
from addiffusion.config import BackboneSection
from addiffusion.quiet_loading import quiet_loading


class PipelineBackbone(ABC):
    """A frozen pipeline. Only the network (and a T5 encoder) runs in reduced precision; its answers are float32."""

    pipeline_class: ClassVar[Any]
    load_options: ClassVar[dict[str, Any]] = {}
    guided: ClassVar[bool] = True
    """Whether the network can be guided by a second pass."""
    latent_scaling: ClassVar[tuple[str, ...]] = ("scaling_factor",)
    """Options of the autoencoder by which ``pipeline_class`` scales latents."""

    def __init__(
        self,
        pipeline: Any,
        section: BackboneSection,
        *,
        preview: Any | None = None,
        borrowed: ImageSize | None = None,
    ) -> None:
        """Wrap a loaded pipeline.

        Args:
            pipeline: of ``pipeline_class``; it is moved, cast and watched, so it is of no other use afterwards.
            section: everything but ``path`` and ``preview`` is used.
            preview: a tiny autoencoder of the same latents.
            borrowed: the pipeline stays where it is, in its own precision, and is only watched, as ``borrow`` does it;
                the images are of this size. None: it is taken over.

        Raises:
            ConfigError: the pipeline is no plain text-to-image one, or can't make images of that size.
            WeightsError: the LoRA, the preview decoder or a tokenizer does not fit.
        """
        self._refuse(pipeline, section)
        self._pipeline, self._section = pipeline, section
        network = self._network
        owned = borrowed is None
        self._device, self._dtype = wanted_placement(section) if owned else own_placement(pipeline, network)
        check_channels(self._latent_channels, pipeline.vae.config.latent_channels)
        self._latent_shape = self._latent_channels, *self._latent_sides(section, borrowed)
        if owned:
            claim(pipeline, network, section, device=self._device, dtype=self._dtype)
        self._decode = self._decoder(pipeline.vae, borrowed=not owned)
        if preview is not None:
            check_preview(self._latent_channels, preview.config.latent_channels)
        self._preview = None if preview is None else self._decoder(preview)
        for reader in self._readers():
            reader.check(getattr(pipeline, reader.name).config)
        self._prompts = PromptCache(self._encode_quietly, self._readers)
        self._recorder = self._make_recorder(network)
        self._forward: Any = compiled(network, section, self._device) if owned else network

    @classmethod
    def from_section(cls, section: BackboneSection) -> PipelineBackbone:
        """Load the pipeline a configuration names.

        Raises:
            WeightsError: the folder or hub id can't be loaded.
            ConfigError: the pipeline is not of this family, or no plain text-to-image one.
        """
        # A LoRA is added in full precision, before the network is cast.
        dtype = torch.float32 if section.lora is not None else DTYPES[section.dtype]
        pipeline = load_pipeline(section, cls.pipeline_class, dtype=dtype, **cls.load_options)
        with quiet_loading():
            return cls(pipeline, section, preview=load_preview(section))

    @classmethod
    @contextmanager
    def borrow(
        cls, pipeline: Any, section: BackboneSection, *, size: ImageSize, preview: Any | None = None
    ) -> Generator[Self]:
        """A pipeline that somebody else uses, for the block; it is left as it was found.

        Args:
            pipeline: of ``pipeline_class``.
            section: ``guidance_scale`` is used.
            size: height and width of the images.
            preview: a tiny autoencoder of the same latents, of no other use afterwards.

        Raises:
            ConfigError: the pipeline is no plain text-to-image one, or can't make images of that size.
            WeightsError: a tokenizer does not fit.
        """
        with quiet_loading():
            backbone = cls(pipeline, section, preview=preview, borrowed=size)
        try:
            yield backbone
        finally:
            backbone._recorder.close()

    # ---------------------------------------------------------------- what a family adds

    @classmethod  # noqa: B027 - most refuse nothing
    def _refuse(cls, pipeline: Any, section: BackboneSection) -> None:
        """Raise a ConfigError for a pipeline or a section that this family can't be sampled with."""

    @property
    @abstractmethod
    def _network(self) -> nn.Module:
        """The denoiser."""

    @property
    @abstractmethod
    def _latent_channels(self) -> int:
        """Channels of a latent, as the network takes them."""

    @property
    @abstractmethod
    def _own_latent_sides(self) -> tuple[int, int]:
        """Height and width of a latent the model was made for."""

    @property
    @abstractmethod
    def _stride(self) -> int:
        """The latent's sides must be multiples of this."""

    @abstractmethod
    def _make_recorder(self, network: nn.Module) -> AttentionRecorder: ...

    @property
    def _largest_latent(self) -> int | None:
        """Largest side of a latent the network can take; None without a limit."""
        return None

    @abstractmethod
    def _encode_batch(self, prompts: list[str]) -> list[PromptEmbedding]: ...

    @abstractmethod
    def _readers(self) -> Sequence[Reader]:
        """The text encoders, each with its limit."""

    @abstractmethod
    def _pass(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None,
    ) -> Float[Tensor, "b c h w"]:
        """Raw output for inputs in the network's precision."""

    @property
    @abstractmethod
    def middle_width(self) -> int:
        """Width of a record's ``middle_features``."""

    # ---------------------------------------------------------------- for those who compare

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline itself, with its denoiser as it was cast here; never the compiled one."""
        return self._pipeline

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return self._dtype

    # ---------------------------------------------------------------- the port

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of a latent."""
        return self._latent_shape

    @property
    def image_size(self) -> int:
        """Height of a decoded image in pixels; its width too, unless it was asked for otherwise."""
        return self._latent_shape[1] * self._pipeline.vae_scale_factor

    @property
    def image_shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Heights and widths in pixels: of the images, and of those that the model was made for."""
        scale = self._pipeline.vae_scale_factor
        (height, width), (own_height, own_width) = self._latent_shape[1:], self._own_latent_sides
        return (height * scale, width * scale), (own_height * scale, own_width * scale)

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
        return self._prompts(prompts)

    def uncond(self) -> PromptEmbedding:
        """What guidance leads away from: the embedding of the empty prompt."""
        return self._uncond

    @cached_property
    def _uncond(self) -> PromptEmbedding:
        return self.encode_prompts([""])[0]

    @torch.inference_mode()
    def denoise(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """One pass through the network: raw output, float32."""
        self._recorder.begin()
        pooled = None if pooled is None else pooled.to(self._dtype)
        if self._section.compile != "cuda_graphs":
            return self._pass(z.to(self._dtype), t, hidden.to(self._dtype), pooled).float()
        torch.compiler.cudagraph_mark_step_begin()
        output = self._pass(z.to(self._dtype), t, hidden.to(self._dtype), pooled).float().clone()
        self._recorder.own()  # a graph's next replay writes over what this one left
        return output

    def last_pass(self) -> PassRecord:
        """What the last ``denoise`` call can be asked about."""
        return self._recorder.record(self.latent_shape[1:])

    @torch.inference_mode()
    def decode(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """Decode clean latents to the images (b, H, W, 3) that are returned."""
        return self._decode(z0)

    @torch.inference_mode()
    def decode_raw(self, z0: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Decode clean latents to images as the autoencoder gives them, from -1 to 1 or a little beyond."""
        return self._decode.raw(z0)

    def packed(self, z0: Float[Tensor, "b c h w"]) -> Tensor:
        """Latents in the shape that the family's pipeline gives them out."""
        return z0

    @property
    def previews(self) -> bool:
        """Whether there is a tiny autoencoder for images that are only looked at."""
        return self._preview is not None

    @torch.inference_mode()
    def preview(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        """Decode clean latents to images (b, H, W, 3) by the tiny autoencoder, or as ``decode`` without one."""
        return (self._preview or self._decode)(z0)

    # ---------------------------------------------------------------- sizes and parts

    def _decoder(self, autoencoder: Any, *, borrowed: bool = False) -> LatentDecoder:
        return LatentDecoder(
            autoencoder,
            self._device,
            scaling=self.latent_scaling,
            batch=self._section.decode_batch,
            tiling=self._section.decode_tiling,
            borrowed=borrowed,
        )

    def _encode_quietly(self, prompts: list[str]) -> list[PromptEmbedding]:
        # What the libraries say of a cut is about the whole padded batch; the cache says it of the prompt.
        with quiet_loading():
            return self._encode_batch(prompts)

    def _latent_sides(self, section: BackboneSection, borrowed: ImageSize | None) -> tuple[int, int]:
        sides = LatentSides(
            own=self._own_latent_sides,
            scale=self._pipeline.vae_scale_factor,
            stride=self._stride,
            largest=self._largest_latent,
        )
        if borrowed is not None:
            return sides.of(borrowed, keys=("height", "width"))
        return sides.of((section.image_size, section.image_size), keys=("backbone.image_size", "backbone.image_size"))
