"""FluxPipeline in its schnell form: a flow distilled to a few steps, without guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.backbones.base import PromptEmbedding, Scheduler
from addiffusion.backbones.joint_attention import JointRecorder
from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.backbones.prompt_cache import Reader, words_of
from addiffusion.backbones.solvers import rebuilt
from addiffusion.config import BackboneSection
from addiffusion.errors import ConfigError

T5_TOKENS = 256
"""What schnell was distilled with."""
_PATCH = 2
"""The pipeline packs 2 x 2 pixels of a latent into one token."""
_TRAIN_TIMESTEPS = 1000


class FluxSchedule(FlowMatchEulerDiscreteScheduler):
    """The points FluxPipeline asks its scheduler for: shares of noise from 1 to 1 / n in even steps."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Lay out a schedule of so many steps."""
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        super().set_timesteps(sigmas=sigmas.tolist(), device=device, **options)


class FluxBackbone(PipelineBackbone):
    """T5's text tokens and CLIP's pooled vector; latents are packed and unpacked around the network."""

    pipeline_class: ClassVar[Any] = FluxPipeline
    guided: ClassVar[bool] = False
    latent_scaling: ClassVar[tuple[str, ...]] = ("scaling_factor", "shift_factor")

    @classmethod
    def _refuse(cls, pipeline: Any, section: BackboneSection) -> None:
        if pipeline.transformer.config.guidance_embeds:
            raise ConfigError("backbone.kind=flux takes schnell; this network wants its guidance scale as an input.")
        if section.guidance_scale > 1:
            raise ConfigError(
                f"backbone.guidance_scale={section.guidance_scale:g} asks for guidance, which schnell was distilled to "
                "do without: set it to 1.",
                guidance_scale=section.guidance_scale,
            )

    @property
    def _network(self) -> Any:
        return self._pipeline.transformer

    @property
    def _latent_channels(self) -> int:
        return self._network.config.in_channels // _PATCH**2

    @property
    def _own_latent_sides(self) -> tuple[int, int]:
        side = self._pipeline.default_sample_size
        return side, side

    @property
    def _stride(self) -> int:
        return _PATCH

    @property
    def middle_width(self) -> int:
        """Width of a token."""
        config = self._network.config
        return config.num_attention_heads * config.attention_head_dim

    @property
    def scheduler(self) -> Scheduler:
        """The pipeline's scheduler, laid out as the pipeline does."""
        return rebuilt(self._pipeline.scheduler, FluxSchedule, {})

    def packed(self, z0: Float[Tensor, "b c h w"]) -> Tensor:
        """(b, token, 4 c) as the pipeline keeps its latents."""
        return self._pipeline._pack_latents(z0, *z0.shape)

    def _make_recorder(self, network: nn.Module) -> JointRecorder:
        return JointRecorder(network)

    def _encode_batch(self, prompts: list[str]) -> list[PromptEmbedding]:
        pipeline = self._pipeline
        hidden, pooled, _ = pipeline.encode_prompt(prompts, None, device=self._device, max_sequence_length=T5_TOKENS)
        keep = words_of(pipeline.tokenizer_2, prompts, T5_TOKENS)
        rows = zip(hidden.float().cpu(), keep, pooled.float().cpu(), strict=True)
        return [PromptEmbedding(hidden=h.clone(), keep=words, pooled=p.clone()) for h, words, p in rows]

    def _readers(self) -> Sequence[Reader]:
        pipeline = self._pipeline
        return (
            Reader(name="text_encoder", tokenizer=pipeline.tokenizer, length=pipeline.tokenizer_max_length),
            Reader(name="text_encoder_2", tokenizer=pipeline.tokenizer_2, length=T5_TOKENS),
        )

    def _pass(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None,
    ) -> Float[Tensor, "b c h w"]:
        pipeline, (rows, channels, height, width) = self._pipeline, z.shape
        image_ids = pipeline._prepare_latent_image_ids(rows, height // _PATCH, width // _PATCH, z.device, z.dtype)
        output = self._forward(
            hidden_states=pipeline._pack_latents(z, rows, channels, height, width),
            timestep=(t / _TRAIN_TIMESTEPS).to(z.dtype),
            encoder_hidden_states=hidden,
            pooled_projections=pooled,
            img_ids=image_ids,
            txt_ids=torch.zeros(hidden.shape[1], 3, device=z.device, dtype=z.dtype),
            return_dict=False,
        )[0]
        scale = pipeline.vae_scale_factor
        return pipeline._unpack_latents(output, height * scale, width * scale, scale)
