"""StableDiffusionXLPipeline (arXiv:2307.01952), SDXL-Turbo too: two text encoders, and the image's size as input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.base import PromptEmbedding
from addiffusion.backbones.decoder import STATISTICS
from addiffusion.backbones.prompt_cache import Reader, words_of
from addiffusion.backbones.stable_diffusion import UNetBackbone


class SdxlBackbone(UNetBackbone):
    """States of both encoders side by side, the second one's pooled vector, and original size, crop and target size."""

    pipeline_class: ClassVar[Any] = StableDiffusionXLPipeline
    load_options: ClassVar[dict[str, Any]] = {"add_watermarker": False}
    latent_scaling: ClassVar[tuple[str, ...]] = ("scaling_factor", *STATISTICS)
    fed: ClassVar[dict[str, Any]] = {"addition_embed_type": "text_time"}

    def uncond(self) -> PromptEmbedding:
        """Zeros where the pipeline was trained so, else the embedding of the empty prompt."""
        empty = super().uncond()
        if not self._pipeline.config.force_zeros_for_empty_prompt:
            return empty
        assert empty.pooled is not None
        return PromptEmbedding(
            hidden=torch.zeros_like(empty.hidden), keep=empty.keep, pooled=torch.zeros_like(empty.pooled)
        )

    def _encode_batch(self, prompts: list[str]) -> list[PromptEmbedding]:
        hidden, _, pooled, _ = self._pipeline.encode_prompt(
            prompts, device=self._device, do_classifier_free_guidance=False
        )
        tokenizer = self._pipeline.tokenizer
        keep = words_of(tokenizer, prompts, tokenizer.model_max_length)
        rows = zip(hidden.float().cpu(), keep, pooled.float().cpu(), strict=True)
        return [PromptEmbedding(hidden=h.clone(), keep=words, pooled=p.clone()) for h, words, p in rows]

    def _readers(self) -> Sequence[Reader]:
        tokenizers = {"text_encoder": self._pipeline.tokenizer, "text_encoder_2": self._pipeline.tokenizer_2}
        return [Reader(name=name, tokenizer=one, length=one.model_max_length) for name, one in tokenizers.items()]

    def _pass(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None,
    ) -> Float[Tensor, "b c h w"]:
        scale, (height, width) = self._pipeline.vae_scale_factor, z.shape[2:]
        size = (height * scale, width * scale)
        width = self._pipeline.text_encoder_2.config.projection_dim
        sizes = self._pipeline._get_add_time_ids(
            size, (0, 0), size, dtype=hidden.dtype, text_encoder_projection_dim=width
        )
        added = {"text_embeds": pooled, "time_ids": sizes.to(self._device).repeat(len(z), 1)}
        return self._forward(z, t, encoder_hidden_states=hidden, added_cond_kwargs=added, return_dict=False)[0]
