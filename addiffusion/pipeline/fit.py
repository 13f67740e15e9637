"""Whether a policy is at home on a model and setting: an error where it can't work, else a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from addiffusion.backbones.part_files import network_name
from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.config import Config
from addiffusion.errors import CheckpointError
from addiffusion.observation.layout import Layout
from addiffusion.pipeline.card import same_weights, weight_digest
from addiffusion.pipeline.policy import Policy

_log = logging.getLogger(__name__)


def check_widths(policy: Policy, layout: Layout) -> None:
    """Refuse a policy that sees another number of features.

    Raises:
        CheckpointError: it does.
    """
    if policy.input_width != layout.width:
        raise CheckpointError(
            f"The policy sees {policy.input_width} numbers, and this model gives {layout}: it was trained on a "
            "model of other widths; train one on this model.",
            seen=policy.input_width,
            width=layout.width,
        )


def tell_once(difference: str, told: set[str]) -> None:
    """Warn of a difference that is not among those ``told``."""
    if difference not in told:
        told.add(difference)
        _log.warning("the policy was trained on another %s; its decisions may not suit this one.", difference)


def differences(
    pipe: Any, policy: Policy, config: Config, *, backbone: PipelineBackbone, scales: Sequence[float]
) -> Iterator[str]:
    """Each difference between a call and the policy's training, as ``<what> (<there>, and this is <here>)``.

    Args:
        pipe: the adaptive pipeline.
        policy: decides.
        config: what the call runs with.
        backbone: the pipeline's own models.
        scales: guidance scale of each image.
    """
    trained, card = policy.trained_with, policy.card
    kind = "stable_diffusion" if trained.backbone.kind == "embedded" else trained.backbone.kind
    if kind != pipe.backbone_kind:
        yield f"family of models ({kind}, and this is {pipe.backbone_kind})"
    elif card is not None and not same_weights(card.digest, weight_digest(network_of(pipe))):
        yield f"model ({card.backbone}, and this one has other weights)"
    steps, known_steps = config.sampler.num_steps, trained.sampler.step_counts
    if not known_steps[0] <= steps <= known_steps[1]:
        yield f"schedule ({span(known_steps)} steps, and this is {steps})"
    asked = min(scales), max(scales)
    least, greatest = (max(scale, 1.0) for scale in trained.backbone.guidance_scales)
    if not (least <= asked[0] and asked[1] <= greatest):
        yield f"guidance scale ({span((least, greatest))}, and this is {span(asked)})"
    drawn, own = backbone.image_shapes
    side = trained.backbone.image_size
    known = own if side is None else (side, side)
    if drawn != known:
        yield f"image size ({known[0]} x {known[1]} pixels, and this is {drawn[0]} x {drawn[1]})"


def span(bounds: tuple[float, float]) -> str:
    """A range as people write it, or the one value it has."""
    low, high = bounds
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def network_of(pipe: Any) -> Any:
    """The denoiser of an adaptive pipeline."""
    return getattr(pipe, network_name(pipe.backbone_kind))
