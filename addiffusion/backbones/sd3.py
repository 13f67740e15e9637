"""StableDiffusion3Pipeline (arXiv:2403.03206): a joint-attention transformer on a flow, with two or three encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from addiffusion.backbones.base import PromptEmbedding
from addiffusion.backbones.joint_attention import JointRecorder
from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.backbones.prompt_cache import Reader, words_of

T5_TOKENS = 256
"""The pipeline's own default."""


class Sd3Backbone(PipelineBackbone):
    """Text tokens of CLIP and then of T5, and one pooled vector of both CLIPs."""

    pipeline_class: ClassVar[Any] = StableDiffusion3Pipeline
    latent_scaling: ClassVar[tuple[str, ...]] = ("scaling_factor", "shift_factor")

    @property
    def _network(self) -> Any:
        return self._pipeline.transformer

    @property
    def _latent_channels(self) -> int:
        return self._network.config.in_channels

    @property
    def _own_latent_sides(self) -> tuple[int, int]:
        side = self._network.config.sample_size
        return side, side

    @property
    def _stride(self) -> int:
        """Pixels of the latent are taken in patches."""
        return self._network.config.patch_size

    @property
    def _largest_latent(self) -> int | None:
        """Patches are placed on a learned grid of that many."""
        return self._network.config.pos_embed_max_size * self._network.config.patch_size

    @property
    def middle_width(self) -> int:
        """Width of a token."""
        config = self._network.config
        return config.num_attention_heads * config.attention_head_dim

    def _make_recorder(self, network: nn.Module) -> JointRecorder:
        return JointRecorder(network)

    def _encode_batch(self, prompts: list[str]) -> list[PromptEmbedding]:
        pipeline = self._pipeline
        hidden, _, pooled, _ = pipeline.encode_prompt(
            prompts,
            None,
            None,
            device=self._device,
            do_classifier_free_guidance=False,
            max_sequence_length=T5_TOKENS,
        )
        keep = words_of(pipeline.tokenizer, prompts, pipeline.tokenizer_max_length)
        # The words count once: T5 reads the same ones in the tokens that follow.
        keep = functional.pad(keep, (0, hidden.shape[1] - keep.shape[1]))
        rows = zip(hidden.float().cpu(), keep, pooled.float().cpu(), strict=True)
        return [PromptEmbedding(hidden=h.clone(), keep=words, pooled=p.clone()) for h, words, p in rows]

    def _readers(self) -> Sequence[Reader]:
        pipeline, length = self._pipeline, self._pipeline.tokenizer_max_length
        readers = [
            Reader(name="text_encoder", tokenizer=pipeline.tokenizer, length=length),
            Reader(name="text_encoder_2", tokenizer=pipeline.tokenizer_2, length=length),
        ]
        if pipeline.text_encoder_3 is not None:
            readers.append(Reader(name="text_encoder_3", tokenizer=pipeline.tokenizer_3, length=T5_TOKENS))
        return readers

    def _pass(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None,
    ) -> Float[Tensor, "b c h w"]:
        return self._forward(
            hidden_states=z, timestep=t, encoder_hidden_states=hidden, pooled_projections=pooled, return_dict=False
        )[0]
