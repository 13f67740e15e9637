"""Any diffusers StableDiffusionPipeline, from the tiny embedded one to SD 1.5, behind the backbone port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.backbones.attention import UNetRecorder
from addiffusion.backbones.base import PromptEmbedding
from addiffusion.backbones.conditions import check_conditions
from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.backbones.prompt_cache import Reader, words_of
from addiffusion.config import BackboneSection


class UNetBackbone(PipelineBackbone):
    """What the families with a UNet share."""

    fed: ClassVar[dict[str, Any]] = {}
    """Options of the UNet whose inputs the family feeds, with the value it feeds them for."""

    @classmethod
    def _refuse(cls, pipeline: Any, section: BackboneSection) -> None:  # noqa: ARG003 - any section will do
        check_conditions(pipeline.unet.config, **cls.fed)

    @property
    def _network(self) -> Any:
        return self._pipeline.unet

    @property
    def _latent_channels(self) -> int:
        return self._network.config.in_channels

    @property
    def _own_latent_sides(self) -> tuple[int, int]:
        size = self._network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height, width

    @property
    def _stride(self) -> int:
        """Each level but the last halves the latent, and rounds up where that leaves a rest."""
        return 1

    @property
    def middle_width(self) -> int:
        """Channels of the lowest level."""
        return self._network.config.block_out_channels[-1]

    def _make_recorder(self, network: nn.Module) -> UNetRecorder:
        return UNetRecorder(network)


class StableDiffusionBackbone(UNetBackbone):
    """One text encoder, nothing but its states to condition on."""

    pipeline_class: ClassVar[Any] = StableDiffusionPipeline
    load_options: ClassVar[dict[str, Any]] = {"requires_safety_checker": False}

    def _encode_batch(self, prompts: list[str]) -> list[PromptEmbedding]:
        hidden = self._pipeline.encode_prompt(prompts, self._device, 1, do_classifier_free_guidance=False)[0]
        tokenizer = self._pipeline.tokenizer
        keep = words_of(tokenizer, prompts, tokenizer.model_max_length)
        rows = zip(hidden.float().cpu(), keep, strict=True)
        return [PromptEmbedding(hidden=states.clone(), keep=words) for states, words in rows]

    def _readers(self) -> Sequence[Reader]:
        tokenizer = self._pipeline.tokenizer
        return (Reader(name="text_encoder", tokenizer=tokenizer, length=tokenizer.model_max_length),)

    def _pass(
        self,
        z: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        hidden: Float[Tensor, "b token width"],
        pooled: Float[Tensor, "b pool"] | None,  # noqa: ARG002 - the family has none
    ) -> Float[Tensor, "b c h w"]:
        return self._forward(z, t, encoder_hidden_states=hidden, return_dict=False)[0]
