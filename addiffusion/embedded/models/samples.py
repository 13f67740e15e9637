"""Images of a pipeline folder, drawn by diffusers' own schedulers in one batched loop.

The engine of `addiffusion.sampling` draws the same images under control; this loop is the plain reference that the
embedded world is measured with. On a CPU a row depends on its own caption and noise alone, bit by bit, as long as the
batch keeps its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel

from addiffusion.config.sampling import FinishSolverName
from addiffusion.embedded.models.tokenizer import encode
from addiffusion.embedded.world.pixels import to_pixels
from addiffusion.errors import WeightsError
from addiffusion.quiet_loading import quiet_loading
from addiffusion.seeds import generator
from addiffusion.weights import LOAD_FAILURES, gist, load_whole

_NETWORKS: Final[dict[str, Any]] = {"unet": UNet2DConditionModel, "vae": AutoencoderTiny, "text_encoder": CLIPTextModel}
_SCHEDULERS: Final[dict[FinishSolverName, Any]] = {"ddim": DDIMScheduler, "dpm++2m": DPMSolverMultistepScheduler}
"""DDIM (arXiv:2010.02502) and the second-order multistep DPM-Solver++ (arXiv:2211.01095)."""


class SceneSampler:
    """UNet, decoder, text encoder and noise schedule of a ``StableDiffusionPipeline``, wherever they are."""

    def __init__(self, *, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any) -> None:
        """Take diffusers and transformers modules that fit together.

        Args:
            unet: the denoiser.
            vae: its decoder gives the pixels.
            text_encoder: of the captions.
            tokenizer: of the text encoder.
            scheduler: gives the noise schedule alone.
        """
        self._unet = unet
        self._vae = vae
        self._text_encoder = text_encoder
        self._tokenizer = tokenizer
        self._noise_schedule: Any = scheduler.config

    @classmethod
    def from_folder(cls, pipeline: Path, *, device: torch.device | None = None) -> SceneSampler:
        """Loads the folder through diffusers' public class, onto the CPU when no device is given.

        Raises:
            WeightsError: the folder is missing or no pipeline, or a tensor is missing, left over or of another shape.
        """
        loaded = _load(pipeline).to(device or torch.device("cpu"))
        return cls(
            unet=loaded.unet.eval(),
            vae=loaded.vae.eval(),
            text_encoder=loaded.text_encoder.eval(),
            tokenizer=loaded.tokenizer,
            scheduler=loaded.scheduler,
        )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        size: int = self._unet.config.sample_size
        return self._unet.config.in_channels, size, size

    def noise(self, seeds: Sequence[int]) -> Float[Tensor, "n c h w"]:
        """Initial latents, those the engine and ``pipeline(..., generator=generator(seed, "latent"))`` begin with."""
        return torch.stack([torch.randn(self.latent_shape, generator=generator(seed, "latent")) for seed in seeds])

    @torch.inference_mode()
    def z0_preds(
        self,
        captions: Sequence[str],
        noise: Float[Tensor, "n c h w"],
        *,
        solver: FinishSolverName,
        steps: int,
        guidance: float,
    ) -> Iterator[Float[Tensor, "n c h w"]]:
        """The clean prediction at each step; the last one is the finished latent.

        Args:
            captions: n of them.
            noise: initial latents.
            solver: what steps.
            steps: of its schedule.
            guidance: scale of classifier-free guidance (arXiv:2207.12598 Eq. 6 in diffusers' scaling); at 1 or below
                the unconditional pass is left out.
        """
        scheduler = _SCHEDULERS[solver].from_config(self._noise_schedule)
        scheduler.set_timesteps(steps)
        hidden = self._hidden(captions, guided=guidance > 1)
        z = noise.to(hidden.device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps.to(hidden.device):
            moved = scheduler.step(self._predict(scheduler.scale_model_input(z, t), t, hidden, guidance), t, z)
            z = moved.prev_sample
            # DPM-Solver++ keeps its clean predictions as the history it extrapolates from
            yield moved.pred_original_sample if solver == "ddim" else scheduler.model_outputs[-1]

    @torch.inference_mode()
    def decode(self, z0: Float[Tensor, "n c h w"]) -> NDArray[np.uint8]:
        """(n, H, W, 3) pixels of clean latents."""
        return to_pixels(self._vae.decode(z0 / self._vae.config.scaling_factor).sample)

    def _hidden(self, captions: Sequence[str], *, guided: bool) -> Float[Tensor, "m token width"]:
        ids = encode(self._tokenizer, [""] * len(captions) * guided + list(captions))
        return self._text_encoder(ids.to(self._text_encoder.device))[0]

    def _predict(
        self, z: Float[Tensor, "n c h w"], t: Tensor, hidden: Float[Tensor, "m token width"], guidance: float
    ) -> Float[Tensor, "n c h w"]:
        rows = torch.cat([z] * (len(hidden) // len(z)))
        output: Tensor = self._unet(rows, t, encoder_hidden_states=hidden, return_dict=False)[0]
        if len(hidden) == len(z):
            return output
        free, bound = output.chunk(2)
        return free + guidance * (bound - free)


def _load(folder: Path) -> Any:
    absent: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    advice = "give --weights the folder that `addiffusion embedded train` wrote"
    try:
        if not (folder / "model_index.json").is_file():
            raise FileNotFoundError("model_index.json is missing")
        with quiet_loading():
            parts = {
                name: load_whole(kind, str(folder / name), part=name, named=str(folder / name), advice=advice)
                for name, kind in _NETWORKS.items()
            }
            kind: Any = StableDiffusionPipeline
            return kind.from_pretrained(folder, **parts, **absent)
    except LOAD_FAILURES as error:
        raise WeightsError(
            f"The pipeline at {folder} can't be loaded ({gist(error)}); {advice}.", path=str(folder)
        ) from error
