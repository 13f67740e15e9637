"""Arguments of a call, spread over its images. Errors are ValueErrors, in diffusers' own words where it has them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast

import torch
from diffusers.utils import torch_utils
from jaxtyping import Float
from torch import Tensor

from addiffusion.errors import ArgumentError
from addiffusion.prompts.text import checked_prompt
from addiffusion.seeds import derive_seed

Generators: TypeAlias = "torch.Generator | list[torch.Generator] | None"
_Value = TypeVar("_Value")
FAMILY_ARGUMENTS = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "num_inference_steps",
    "guidance_scale",
    "num_images_per_prompt",
    "generator",
    "latents",
    "output_type",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
)
"""Arguments of a call that every family's own pipeline takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallArguments:
    """What a call was given; None is what the policy was trained with, where it says something of it."""

    prompt: str | list[str] | None = None
    negative_prompt: str | list[str] | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | Sequence[float] | None = None
    num_images_per_prompt: int | None = 1
    generator: Generators = None
    latents: Tensor | None = None
    output_type: str | None = "pil"
    return_dict: bool = True
    callback_on_step_end: Callable[..., Any] | None = None
    callback_on_step_end_tensor_inputs: list[str] | None = None
    speed: float | None = None
    c_nfe: float | None = None
    max_cost: float | None = None
    slots: int | None = None
    deterministic: bool = True
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the family's own pipeline alone."""

    @property
    def prompts(self) -> list[str]:
        """The prompts, once each.

        Raises:
            ArgumentError: one is empty.
        """
        found = [self.prompt] if isinstance(self.prompt, str) else list(self.prompt or ())
        if not found:
            raise ArgumentError("`prompt` has to hold at least one prompt, but is an empty list.")
        for number, text in enumerate(found):
            where = "`prompt`" if isinstance(self.prompt, str) else f"`prompt[{number}]`"
            if not checked_prompt(text, where).strip():
                raise ArgumentError(f"{where} is empty: say what to draw, or leave it to `policy=None`.")
        return found

    @property
    def tensor_inputs(self) -> list[str]:
        """Names of the tensors that the callback asks for."""
        own: Any = getattr(self.callback_on_step_end, "tensor_inputs", None)
        return own or self.callback_on_step_end_tensor_inputs or ["latents"]

    def refuse(self, names: Sequence[str], reason: str) -> None:
        """Refuse arguments that say something here.

        Raises:
            ArgumentError: one of them was given.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise ArgumentError(f"`{name}` {reason}.", argument=name)

    def check(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            ArgumentError: one was given.
        """
        self.refuse_others()
        for name in ("height", "width", "num_inference_steps", "num_images_per_prompt", "slots"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value <= 0):
                raise ArgumentError(f"`{name}` has to be a positive integer but is {value} of type {type(value)}.")
        for name in ("speed", "c_nfe"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ArgumentError(f"`{name}` has to be a positive number but is {value}.")
        if self.speed is not None and self.c_nfe is not None:
            raise ArgumentError(
                "Cannot forward both `speed` and `c_nfe`: a speed is a price by the policy's own curve."
            )

    def refuse_others(self) -> None:
        """Refuse what only the family's own loop knows.

        Raises:
            ArgumentError: something of it was given.
        """
        given = [name for name, value in self.others.items() if value is not None]
        if given:
            raise ArgumentError(
                f"`{given[0]}` is an argument of the family's own loop, which a policy replaces: leave it out, or call "
                "with policy=None.",
                argument=given[0],
            )


def per_image(value: _Value | Sequence[_Value], *, name: str, prompt_count: int, times: int) -> list[_Value]:
    """One value for each image.

    Args:
        value: one for all, or one for each prompt.
        name: of the argument.
        prompt_count: prompts of the call.
        times: images of each prompt, which stand together.

    Raises:
        ArgumentError: there are not as many as prompts.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [cast("_Value", value)] * (prompt_count * times)
    values = cast("Sequence[_Value]", value)
    if len(values) != prompt_count:
        raise ArgumentError(
            f"`{name}` has batch size {len(values)}, but `prompt` has batch size {prompt_count}. Please make sure that "
            f"passed `{name}` matches the batch size of `prompt`.",
            argument=name,
        )
    return [one for one in values for _ in range(times)]


def initial_noise(
    call: CallArguments, shape: tuple[int, int, int], count: int, *, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "n c h w"]:
    """What diffusers would draw for these images, in float32.

    Args:
        call: gives generators and latents.
        shape: (c, h, w) of one latent.
        count: n, of the images.
        device: where the network is.
        dtype: of the network.

    Raises:
        ArgumentError: there are not as many generators or latents as images, or latents are of another shape.
        ValueError: a generator is on another device.
    """
    generator, latents = call.generator, call.latents
    if isinstance(generator, list) and len(generator) != count:
        raise ArgumentError(
            f"You have passed a list of generators of length {len(generator)}, but requested an effective batch size "
            f"of {count}. Make sure the batch size matches the length of the generators.",
            argument="generator",
        )
    if latents is None:
        draw: Any = torch_utils
        return draw.randn_tensor((count, *shape), generator=generator, device=device, dtype=dtype).float()
    if tuple(latents.shape) != (count, *shape):
        raise ArgumentError(
            f"Unexpected latents shape, got {tuple(latents.shape)}, expected {(count, *shape)}.", argument="latents"
        )
    return latents.to(device=device, dtype=torch.float32)


def seed_of(noise: Float[Tensor, "c h w"]) -> int:
    """Root of all that is random in an image beside its initial noise: a pure function of that noise."""
    return derive_seed("image", hashlib.blake2b(noise.cpu().contiguous().numpy().tobytes(), digest_size=8).hexdigest())
