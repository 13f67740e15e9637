"""What a call of the pipeline gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from diffusers.utils.outputs import BaseOutput


@dataclass
class AdaptivePipelineOutput(BaseOutput):
    """Images, and what each of them took. Lists are in the order of the images.

    Examples:
        >>> from addiffusion import AdaptivePipeline
        >>> pipe = AdaptivePipeline.from_pretrained("embedded", policy="shipped")
        >>> out = pipe("two green squares", output_type="np")
        >>> out.images.shape, out.nfe[0] < 50, out.actions[0][-1]
        ((1, 64, 64, 3), True, 'stop')
        >>> out[0] is out.images, out["nfe"] == out.nfe
        (True, True)
    """

    images: Any
    """As ``output_type`` asks for them: list of PIL images, array (n, H, W, 3), or tensor."""
    nfe: list[int]
    """Scheduler steps spent on each image; a guided pair of passes is 1."""
    network_evals: list[int]
    """Passes through the network for each image; with guidance 2 per NFE."""
    actions: list[list[str]]
    """Decisions by name, for each image; forced warm-up is none."""
    stopped_at: list[int | None]
    """Schedule index at which each image was stopped; None where it went to the end of the schedule."""
    nsfw_content_detected: list[bool] | None = None
    """What the pipeline's safety checker said; None without one."""
    cost: list[float] = field(default_factory=list[float])
    """What each image cost, in passes of the call's full run: where images are guided, one without guidance is 1/2."""
