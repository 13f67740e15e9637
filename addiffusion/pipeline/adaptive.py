"""`AdaptivePipeline`: a family's own diffusers pipeline whose loop is led by a trained policy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from os import PathLike
from types import EllipsisType
from typing import Any, ClassVar, Self, cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from addiffusion.assets import weights_path
from addiffusion.backbones import backbone_class
from addiffusion.backbones.model_index import KINDS
from addiffusion.errors import ArgumentError
from addiffusion.pipeline.arguments import FAMILY_ARGUMENTS, CallArguments, Generators
from addiffusion.pipeline.constructor import with_policy
from addiffusion.pipeline.policy import Policy, load_policy
from addiffusion.pipeline.run import PolicyRun, Remembered
from addiffusion.quiet_loading import quiet_loading
from addiffusion.scorers.base import Scoring

EMBEDDED = "embedded"
"""Name of the model that ships with the package, wherever a pipeline is asked for."""
_PREFIX = "Adaptive"
_OWN_INPUTS = ["latents", "z0_pred", "prompt_embeds"]
_POLICY_ONLY = ("speed", "c_nfe", "max_cost", "slots")
AnyPolicy = Policy | str | PathLike[str] | None
"""A policy, or what ``load_policy`` takes."""


class AdaptivePipeline(DiffusionPipeline):
    """A diffusers pipeline that decides image by image how far to go.

    Made by ``from_pipe`` or ``from_pretrained``, for Stable Diffusion 1 and 2, SDXL, SD3 and Flux (schnell). It is a
    pipeline of the family's own class with a policy as one more component, so everything else (``to``, offloading,
    ``load_lora_weights``, ``set_progress_bar_config``, ``save_pretrained``) is the family's. Without a policy, a call
    is the family's own, image for image. Components are shared and never altered: a call lets go of what it watches.

    Examples:
        >>> from addiffusion import AdaptivePipeline
        >>> pipe = AdaptivePipeline.from_pretrained("embedded", policy="shipped-latent")
        >>> out = pipe("a red circle left of a blue square", num_images_per_prompt=2)
        >>> len(out.images), all(nfe < 50 for nfe in out.nfe)
        (2, True)
    """

    backbone_kind: ClassVar[str]
    """``backbone.kind`` of the family."""
    scoring: Scoring | None
    """Scorers of a policy that looks at decoded images; None loads those that its configuration names."""
    policy: Policy | None
    """Leads every call that names no other; None is the family's own loop."""
    remembered: Remembered
    """What it keeps from call to call."""
    _family_inputs: ClassVar[list[str]]
    _under_policy = True

    # ---------------------------------------------------------------- how it is made

    @classmethod
    def from_pipe(cls, pipeline: Any, policy: AnyPolicy | EllipsisType = ..., **kwargs: Any) -> Self:
        """A pipeline of the same components, none of them copied.

        Args:
            pipeline: of one of the families, or an adaptive one.
            policy: a policy, or what ``load_policy`` takes; None is the family's own pipeline. Left out, it is that of
                an adaptive ``pipeline``, else none.
            **kwargs: components that replace those of ``pipeline``, ``scoring``, and ``dtype`` (or ``torch_dtype``) to
                cast them all to.

        Raises:
            ArgumentError: the pipeline is of no family that can be sampled.
            UsageError: the policy can't be loaded.
        """
        dtype = kwargs.pop("torch_dtype", None)
        dtype, scoring = kwargs.pop("dtype", dtype), kwargs.pop("scoring", None)
        made: Any = _class_for(pipeline)
        components = {**pipeline.components, **pipeline.parameters, **kwargs}
        if policy is not ...:
            components["policy"] = _loaded(policy)
        adaptive = made(**components)
        adaptive.scoring = scoring
        for name in ("_all_hooks", "_offload_device", "_offload_gpu_id", "_progress_bar_config", "hf_device_map"):
            if name in vars(pipeline):
                setattr(adaptive, name, getattr(pipeline, name))
        adaptive.register_to_config(_name_or_path=pipeline.config.get("_name_or_path"))
        return adaptive if dtype is None else adaptive.to(dtype=dtype)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], policy: AnyPolicy | EllipsisType = ..., **kwargs: Any
    ) -> Self:
        """A pipeline from a folder or the hub: one of a family, or one that ``save_pretrained`` wrote.

        Args:
            pretrained_model_name_or_path: as of diffusers; ``embedded`` is the model that ships with the package.
            policy: as of ``from_pipe``; left out, the one that was saved, if any.
            **kwargs: as of diffusers, and ``scoring``.

        Raises:
            ArgumentError: the pipeline is of no family that can be sampled.
            UsageError: the policy can't be loaded.
        """
        source = str(pretrained_model_name_or_path)
        if source == EMBEDDED:
            source = str(weights_path("pipeline"))
            kwargs = {"safety_checker": None, "requires_safety_checker": False, **kwargs}
        scoring = kwargs.pop("scoring", None)
        if policy is not ...:
            kwargs["policy"] = _loaded(policy)
        made: Any = cls
        if not hasattr(cls, "backbone_kind"):
            known = {
                key: kwargs[key] for key in ("token", "revision", "cache_dir", "local_files_only") if key in kwargs
            }
            reader: Any = cls
            content = reader.load_config(source, **known)
            made = _class_named(str(content.get("_class_name")))
        load: Any = super(AdaptivePipeline, made)
        shown = nullcontext() if pretrained_model_name_or_path != EMBEDDED else quiet_loading()
        with shown:
            adaptive: Any = load.from_pretrained(source, **kwargs)
        adaptive.scoring = scoring
        return adaptive

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A family's class with a policy added to its constructor, optional parts and order of offloading."""
        super().__init_subclass__(**kwargs)
        family: Any = cls.__bases__[-1]
        cls._optional_components = [*family._optional_components, "policy"]
        cls._family_inputs = list(family._callback_tensor_inputs)
        # The policy acts between two passes: after the network in this order it would send it away at each of them.
        cls.model_cpu_offload_seq = f"policy->{family.model_cpu_offload_seq}"
        cls.__init__ = with_policy(family)

    @property
    def _callback_tensor_inputs(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _OWN_INPUTS if self.policy is not None and self._under_policy else self._family_inputs

    # ---------------------------------------------------------------- calls

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - diffusers' own arguments
        self,
        prompt: str | list[str] | None = None,
        *,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        num_images_per_prompt: int | None = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        policy: AnyPolicy | EllipsisType = ...,
        speed: float | None = None,
        c_nfe: float | None = None,
        max_cost: float | None = None,
        slots: int | None = None,
        deterministic: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Draw images.

        Args:
            prompt: what to draw; one or a list.
            negative_prompt: what guidance leads away from; one or one for each prompt.
            height: in pixels. None is the model's own.
            width: the same.
            num_inference_steps: steps of the full run; None is what the policy was trained with, or the family's own.
            guidance_scale: one or one for each prompt; None as of the steps. 1 or less is no guidance.
            num_images_per_prompt: images of each prompt, which stand together in the result.
            generator: of the initial latents; one, or one for each image.
            latents: initial latents (n, c, h, w) of standard deviation 1, instead of drawn ones.
            output_type: ``pil``, ``np``, ``pt`` or ``latent``.
            return_dict: False gives a tuple, the images first.
            callback_on_step_end: called as ``callback(pipe, i, t, tensors)`` after each tick i, with the timestep of
                each image; it may return other ``latents``, set ``pipe._guidance_scale`` and ``pipe._interrupt``.
            callback_on_step_end_tensor_inputs: tensors for it: ``latents``, ``z0_pred`` (clean predictions),
                ``prompt_embeds``; each has a row for each image.
            policy: instead of the pipeline's own; None is the family's own loop.
            speed: how many times less than the full run images should cost on average, by the policy card.
            c_nfe: price of one NFE instead of a speed.
            max_cost: most that one image may cost, in passes of the full run's kind.
            slots: images at once; None is as many as there are, 8 at most. With equal slots an image is bitwise the
                same whatever else is drawn (on a CPU).
            deterministic: take the policy's likeliest action; False draws from its distribution, by each image's own
                latent.
            **kwargs: arguments of the family's own pipeline, without a policy.

        Returns:
            ``AdaptivePipelineOutput``; without a policy the family's own record.

        Raises:
            ValueError: an argument can't be used.
            UsageError: the policy does not fit the model, or the model can't be sampled so.
            RolloutError: an image could not be drawn.
        """
        call = CallArguments(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            speed=speed,
            c_nfe=c_nfe,
            max_cost=max_cost,
            slots=slots,
            deterministic=deterministic,
            others=kwargs,
        )
        decides = self.policy if policy is ... else _loaded(policy)
        self._under_policy = decides is not None
        try:
            return self._of_the_family(call) if decides is None else self._adaptive(call, decides)
        finally:
            self._under_policy = True

    def _of_the_family(self, call: CallArguments) -> Any:
        call.refuse(_POLICY_ONLY, "says how a policy decides, and this call has none")
        named = {name: getattr(call, name) for name in FAMILY_ARGUMENTS if getattr(call, name) is not None}
        parent: Any = super()
        return parent.__call__(**named, return_dict=call.return_dict, **call.others)

    def _adaptive(self, call: CallArguments, policy: Policy) -> Any:
        call.check()
        self._check_by_family(call)
        pipe: Any = self
        pipe._interrupt = False
        with PolicyRun.begun(pipe, call, policy) as run:
            run.draw()
            found = run.output()
        self.maybe_free_model_hooks()
        return found if call.return_dict else found.to_tuple()

    def _check_by_family(self, call: CallArguments) -> None:
        """The family's own check of what it knows, in its own words."""
        pipe: Any = self
        passes = pipe.vae_scale_factor * 8  # any side that the check lets through
        given = {
            "prompt": call.prompt,
            "negative_prompt": None,
            "height": call.height or passes,
            "width": call.width or passes,
            "callback_on_step_end_tensor_inputs": call.tensor_inputs,
        }
        wanted = inspect.signature(pipe.check_inputs).parameters
        pipe.check_inputs(**{name: given.get(name) for name in wanted})


AdaptivePipeline.scoring = None


@cache
def adaptive_class(kind: str) -> type[AdaptivePipeline]:
    """The adaptive pipeline of a family.

    Args:
        kind: ``backbone.kind``.
    """
    family: Any = backbone_class(kind).pipeline_class
    says = f"``{family.__name__}`` under a policy; see ``AdaptivePipeline``."
    members = {"backbone_kind": kind, "__doc__": says, "__module__": __name__}
    return cast("type[AdaptivePipeline]", type(f"{_PREFIX}{family.__name__}", (AdaptivePipeline, family), members))


def _class_for(pipeline: object) -> type[AdaptivePipeline]:
    names = [one.__name__ for one in type(pipeline).__mro__]
    return _class_named(next((name for name in names if name in KINDS), names[0]))


def _class_named(name: str) -> type[AdaptivePipeline]:
    kind = KINDS.get(name.removeprefix(_PREFIX))
    if kind is None:
        raise ArgumentError(
            f"{name} is no pipeline that a policy can lead: give one of {', '.join(KINDS)}.", pipeline=name
        )
    return adaptive_class(kind)


def _loaded(policy: AnyPolicy) -> Policy | None:
    return policy if isinstance(policy, Policy) or policy is None else load_policy(policy)
