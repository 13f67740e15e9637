"""Sections about one diffusion model: which, how it is stepped, what a refine does, what the policy sees of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from addiffusion.config.section import OR_OFF, Section, Source
from addiffusion.errors import ConfigError

Solver = Literal[
    "pipeline",
    "ddim",
    "dpm++2m",
    "dpm++3m",
    "euler",
    "unipc2",
    "unipc3",
    "pndm",
    "flow_euler",
    "euler_ancestral",
    "lcm",
]
Spacing = Literal["pipeline", "leading", "trailing", "linspace", "karras"]
FinishSolverName = Literal["ddim", "dpm++2m"]
"""Solvers that can end a stopped image."""
SOLVER_TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ddim": "DDIM",
        "dpm++2m": "DPM-Solver++",
        "dpm++3m": "DPM-Solver++(3M)",
        "euler": "Euler",
        "unipc2": "UniPC",
        "unipc3": "UniPC(3)",
        "pndm": "PNDM",
        "flow_euler": "Euler (flow)",
        "euler_ancestral": "Euler a",
        "lcm": "LCM",
    }
)
"""Names of the solvers in tables and figures."""
NOISY_SOLVERS = ("euler_ancestral", "lcm")
"""Solvers that draw noise at every step."""
IMAGE_KEYS = frozenset({"kind", "path", "guidance_scale", "negative_prompt", "image_size", "preview", "lora", "dtype"})
"""Keys of ``BackboneSection`` that images depend on; the others say where and how fast they are drawn."""


Scale = Annotated[float, Field(ge=0, le=1000)]
Steps = Annotated[int, Field(ge=2, le=10_000)]


class BackboneSection(Section):
    """The frozen diffusion model."""

    kind: Literal["embedded", "stable_diffusion", "sdxl", "sd3", "flux"] = "embedded"
    """`embedded` is the model that ships with the package; the others are families of diffusers pipelines."""
    path: Source | None = None
    """Local folder or hub id of the pipeline; must be null for `embedded`."""
    guidance_scale: float = Field(default=3.5, ge=0, le=1000)
    """Classifier-free guidance scale; 1 or less switches guidance off (one network evaluation per NFE)."""
    guidance_scale_range: tuple[Scale, Scale] | None = None
    """Least and greatest guidance scale of training images: each has its own, drawn evenly. null: `guidance_scale`."""
    negative_prompt: str = ""
    """What guidance leads away from, for every image; empty leads away from the empty prompt."""
    image_size: int | None = Field(default=None, ge=8, le=16_384)
    """Side of the images in pixels; null takes what the model was made for."""
    preview: Source | None = None
    """Local folder or hub id of a tiny autoencoder that decodes what the policy looks at; the returned image always
    comes from the model's own. null decodes both with that; `embedded` has one of its own."""
    lora: Source | None = None
    """Local .safetensors file of a LoRA (LCM-LoRA, ...), added to the network's weights once."""
    device: str = "auto"
    """torch device of denoiser and decoder; `auto` takes the GPU Ray gave, else the CPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the network; latents are always float32."""
    decode_batch: int = Field(default=16, ge=1, le=4096)
    """Most images that are decoded at once, in float32 whatever `dtype` is; fewer take less memory, and 1 the least."""
    decode_tiling: bool = False
    """Decode images that are larger than the model's own in overlapping tiles, which differ a little from the image
    decoded whole; a tiny autoencoder needs none."""
    channels_last: bool = False
    """Keep the network's convolutions in channels-last memory: faster on GPUs with bfloat16 or float16."""
    compile: Annotated[Literal["off", "default", "cuda_graphs"], OR_OFF] = "off"
    """`default` compiles the network with torch.compile, `cuda_graphs` (GPU only) also replays it as a CUDA graph."""

    @model_validator(mode="after")
    def _path_fits_kind(self) -> Self:
        if (self.kind == "embedded") != (self.path is None):
            raise ValueError("path must be null for kind=embedded and given for any other kind")
        return self

    @property
    def guidance_scales(self) -> tuple[float, float]:
        """Least and greatest guidance scale of a training episode; equal without ``guidance_scale_range``."""
        return self.guidance_scale_range or (self.guidance_scale, self.guidance_scale)

    @model_validator(mode="after")
    def _range_rises_and_is_guided(self) -> Self:
        if self.guidance_scale_range is not None:
            least, greatest = self.guidance_scale_range
            if least > greatest:
                raise ValueError("guidance_scale_range must not fall")
            if greatest > 1 >= self.guidance_scale:
                raise ValueError("guidance_scale_range goes above 1, which needs a guidance_scale above 1")
        return self

    @model_validator(mode="after")
    def _negative_prompt_needs_guidance(self) -> Self:
        if self.negative_prompt and self.guidance_scale <= 1:
            raise ValueError("negative_prompt needs a guidance_scale above 1")
        return self


class SamplerSection(Section):
    """Solver and schedule."""

    solver: Solver = "ddim"
    """Solver of the base schedule; `pipeline` takes the pipeline's own scheduler. `euler_ancestral` and `lcm` draw
    noise at every step: for evaluation only."""
    spacing: Spacing = "pipeline"
    """Where the schedule's points lie; `pipeline` keeps what the pipeline is configured with."""
    num_steps: int = Field(default=50, ge=2, le=10_000)
    """N_max: steps of the base schedule."""
    warmup_steps: int = Field(default=3, ge=1, le=10_000)
    """Forced continues at the start of each episode: they cost NFE but are no decisions."""
    finish_steps: int = Field(default=8, ge=0, le=10_000)
    """Passes that bring a stopped image from its step to t = 0; 0 returns z0_pred as it is."""
    finish_solver: FinishSolverName = "ddim"
    """Solver of those passes, whatever the base schedule's."""
    num_steps_range: tuple[Steps, Steps] | None = None
    """Fewest and most steps of training images: each has its own number, drawn evenly on a logarithmic scale. null:
    `num_steps`."""
    solvers: Annotated[tuple[Solver, ...], Field(min_length=1, max_length=11)] | None = None
    """Solvers of training images: each has its own, all equally likely. null: `solver`."""
    max_cost: float | None = Field(default=None, gt=0, le=1e6)
    """Most that an image may cost, in guided passes (a pass without guidance is half of one): actions that it could not
    pay for are forbidden to the policy. null: anything."""
    max_cost_share: float | None = Field(default=None, gt=0, le=1000)
    """The same as a share of what an image's full run costs, at its own number of steps: 1 allows no image more than
    that. Beside max_cost the smaller one counts. null: anything."""

    leap_steps: int | None = Field(default=None, ge=2, le=1000)
    """Intervals of the schedule that the action `leap` goes over at once: 2 or 4, say. null: it can't be taken."""
    max_redraws: int = Field(default=2, ge=0, le=1000)
    """Most times that the action `redraw` may begin an image again. Of two attempts that were scored the better one
    goes on, by the reward's weights."""

    def identity(self) -> dict[str, Any]:
        """JSON values by key; keys that came to this section later only where they say something."""
        values = self.model_dump(mode="json")
        later = ("num_steps_range", "solvers", "max_cost", "max_cost_share", "leap_steps", "max_redraws")
        fields = type(self).model_fields
        return {key: value for key, value in values.items() if key not in later or value != fields[key].default}

    @model_validator(mode="after")
    def _warmup_leaves_a_decision(self) -> Self:
        if self.warmup_steps >= self.num_steps:
            raise ValueError("warmup_steps must be smaller than num_steps: lower the one or raise the other")
        return self

    @property
    def step_counts(self) -> tuple[int, int]:
        """Fewest and most steps of a training episode; equal without ``num_steps_range``."""
        return self.num_steps_range or (self.num_steps, self.num_steps)

    @model_validator(mode="after")
    def _range_leaves_a_decision(self) -> Self:
        if self.num_steps_range is not None:
            if self.num_steps_range[0] > self.num_steps_range[1]:
                raise ValueError("num_steps_range must not fall")
            if self.warmup_steps >= self.num_steps_range[0]:
                raise ValueError("warmup_steps must be smaller than the fewest steps of num_steps_range")
        return self

    @model_validator(mode="after")
    def _leaps_have_a_solver(self) -> Self:
        if self.leap_steps is None:
            return self
        if "pndm" in (self.solver, *(self.solvers or ())):
            raise ValueError(
                "leap_steps needs a solver with steps of any length, and pndm has only equal ones: choose another "
                "solver, or leave leap out"
            )
        return self

    @model_validator(mode="after")
    def _cap_pays_for_an_image(self) -> Self:
        why = "warmup_steps, the first decision and finish_steps of an image"
        for num_steps in (self.num_steps, *self.step_counts):
            least = self.warmup_steps + 1 + min(self.finish_steps, num_steps - 1 - self.warmup_steps)
            if self.max_cost is not None and self.max_cost < least:
                raise ValueError(f"max_cost must be at least {least}: {why}")
            if self.max_cost_share is not None and self.max_cost_share * num_steps < least:
                raise ValueError(f"max_cost_share must be at least {least / num_steps:.3g}: {why} of {num_steps} steps")
        return self


class RefineSection(Section):
    """The refine action."""

    mask: Literal["attention", "self_attention", "grid", "random"] = "attention"
    """Which region a refine re-denoises: the one the prompt's words, or the other pixels, attend to least; or a
    control."""
    k: int = Field(default=2, ge=1, le=1000)
    """Denoising passes per refine, on top of the step's own pass."""
    r_noise: float = Field(default=0.5, gt=0, lt=1)
    """Noise level of a refine: t' = r_noise * t."""
    tau: float = Field(default=0.5, gt=0, lt=1)
    """Quantile of attention below which a pixel counts as under-attended."""
    sigma_blur: float = Field(default=3.0, gt=0, le=1000)
    """Gaussian blur of the mask in latent pixels at 64 x 64; scaled with the latent size."""


class UsualScores(Section):
    """Scores of an image like many, which those of a preview are told against."""

    clip: float = Field(default=0.26, ge=-1, le=1)
    """Cosine to the prompt."""
    aesthetic: float = Field(default=5.5, ge=-1e6, le=1e6)
    """Aesthetic score."""
    image_reward: float = Field(default=0.2, ge=-1e6, le=1e6)
    """Preference score."""


class ObservationSection(Section):
    """What the policy sees."""

    kind: Literal["clip", "latent"] = "clip"
    """`clip`: CLIP image and text embedding, timestep, quality scalars; `latent`: features of the denoiser itself, with
    nothing decoded or scored before the image is done (needs reward.preset=paired and reward.credit=final)."""
    timestep_width: int = Field(default=128, ge=2, le=8192, multiple_of=2)
    """Width of the sinusoidal timestep slice."""
    setting: bool = False
    """The policy sees guidance scale, number of steps, the solver's memory and what is left of the cap: for images of
    different settings."""
    previews: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """`latent`: shares of its schedule, rising, after which a preview is decoded and scored for the policy, and again
    after each refine that follows; `redraw` can be taken there alone. []: none is, and no scorer is needed."""
    usual_scores: UsualScores = UsualScores()
    """What the scores of a preview are told against, in units of reward.scales."""

    def identity(self) -> dict[str, Any]:
        """JSON values by key; keys that came to this section later only where they say something."""
        values = self.model_dump(mode="json")
        silent = (() if self.setting else ("setting",)) + (() if self.previews else ("previews", "usual_scores"))
        return {key: value for key, value in values.items() if key not in silent}

    @property
    def scores_images(self) -> bool:
        """Whether some decisions need decoded and scored images."""
        return self.kind == "clip" or bool(self.previews)

    @model_validator(mode="after")
    def _previews_rise(self) -> Self:
        if self.previews and self.kind == "clip":
            raise ValueError(
                "observation.kind=clip scores a preview at every step: previews are for observation.kind=latent, so "
                "leave them at []"
            )
        if list(self.previews) != sorted(set(self.previews)):
            raise ValueError(f"previews must rise, but are {list(self.previews)}")
        return self


@contextmanager
def steps_named(key: str) -> Generator[None]:
    """Errors of this block about ``sampler.num_steps`` name ``key`` in its place.

    Args:
        key: what says how many steps the schedule has that is laid out here.

    Raises:
        ConfigError: the block's own, about ``key``.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.message.replace("sampler.num_steps", key), **error.facts) from error
