"""Bodies of requests, each field with what it may be; errors of validation as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from addiffusion.config.sampling import Solver
from addiffusion.configuration.shown import shown
from addiffusion.errors import PromptError
from addiffusion.prompts.text import checked_prompt
from serving.errors import RefusedError
from serving.image_files import Format
from serving.limits import Limits

_LIMITS = Limits()
Text = Annotated[str, Field(max_length=_LIMITS.prompt_characters)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=2, le=_LIMITS.steps)]
Scale = Annotated[float, Field(ge=0, le=1000)]
Deadline = Annotated[float, Field(gt=0, le=86_400)]


class Body(BaseModel):
    """A body whose fields are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ImageRequest(Body):
    """Body of `POST /v1/images/generations`: OpenAI's fields, then this server's own. null is the default of each."""

    prompt: Annotated[str, Field(min_length=1, max_length=_LIMITS.prompt_characters)]
    """What to draw."""
    model: str | None = None
    """A name of `GET /v1/models`."""
    n: Annotated[int, Field(ge=1, le=_LIMITS.images)] | None = 1
    """Images, each of its own seed."""
    size: Annotated[str, Field(pattern=r"^(auto|\d{1,5}x\d{1,5})$")] | None = "auto"
    """The size of the model's images, or auto."""
    quality: Literal["low", "medium", "high", "auto"] | None = "auto"
    """A point of the price dial: high is the least price of a pass, auto that of the policy's training."""
    response_format: Literal["b64_json"] | None = "b64_json"
    """Images are in the answer; there are no URLs."""
    output_format: Format | None = "png"
    """Of the files."""
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = 100
    """Quality of JPEG and WebP."""
    background: Literal["auto", "opaque"] | None = "auto"
    """Images are opaque."""
    moderation: Literal["auto", "low"] | None = None
    """Nothing is moderated."""
    style: Literal["vivid", "natural"] | None = None
    """Without effect: models here have one style."""
    user: Annotated[str, Field(max_length=512)] | None = None
    """Without effect."""
    stream: bool | None = False
    """Answer by server-sent events, one for each preview and image."""
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = 0
    """Previews of each image, with stream."""
    negative_prompt: Text | None = None
    """What guidance leads away from."""
    seed: Seed | None = None
    """Of the first image; the others count on from it. null draws one."""
    num_inference_steps: Steps | None = None
    """Steps of the full run."""
    guidance_scale: Scale | None = None
    """1 or less: without guidance, at half the cost."""
    solver: Solver | None = None
    """Of the schedule."""
    speed: Annotated[float, Field(gt=0, le=1000)] | None = None
    """How many times less than the full run images should cost on average, instead of a quality."""
    max_cost: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Most that an image may cost, in guided passes."""
    deadline_s: Deadline | None = None
    """Seconds within which the images are wanted: as they run out, images get dearer and stop sooner."""
    full_run: bool | None = False
    """Draw to full length, without the policy."""
    every_decision: bool | None = False
    """With stream: an event for every decision, with a preview and the region of a refine."""


def checked(text: str, param: str) -> str:
    """A prompt that can be read.

    Raises:
        RefusedError: it is blank, or no text.
    """
    try:
        checked_prompt(text, param)
    except PromptError as error:
        raise RefusedError(error.message, param=param) from error
    if not text.strip():
        raise RefusedError(f"{param} is blank: say what to draw.", param=param)
    return text


def refusal_of(errors: Sequence[Any], fields: Sequence[str]) -> RefusedError:
    """The first error of a body that did not validate, as a sentence.

    Args:
        errors: pydantic's.
        fields: names of the body's own fields.
    """
    error: Mapping[str, Any] = errors[0]
    where = [str(part) for part in error["loc"] if part not in {"body", "query", "path"}]
    field = next((part for part in where if part in fields), where[0] if where else "")
    match error["type"]:
        case "missing" if not field:
            said = "The request has no body: send a JSON object."
        case "missing":
            said = f"{field} is missing: give it."
        case "extra_forbidden":
            said = f"{shown(field)} is no field of this request; its fields are {', '.join(fields)}."
        case "json_invalid":
            said, field = "The body is no JSON: send a JSON object.", ""
        case _:
            message = str(error["msg"]).replace("Input should", "it should").replace("String should", "it should")
            said = f"{field or 'The body'}={shown(error.get('input'))} can't be used: {message}."
    return RefusedError(said, param=field or None)
