"""The policy card: what a policy was trained for and what it costs at each price, for programs and for readers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import nn

from addiffusion.files import write_text
from addiffusion.policy_files import CARD_FILE, README_FILE

_log = logging.getLogger(__name__)
_TENSORS, _VALUES = 16, 4
_TOLERANCE = 0.02
"""Relative; half precision keeps values to 0.8 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What images cost at one price."""

    c_nfe: float
    """Price of one NFE."""
    cost: float
    """Mean cost of an image, in passes of the full run's kind."""
    steps: int
    """Steps of the full run it was measured on."""
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    """Mean scores of the images, where they were scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCard:
    """What was measured when a policy was exported."""

    backbone: str
    """Name of the model: its folder's, hub id, or ``embedded``."""
    digest: tuple[float, ...]
    """Some of its weights (``weight_digest``), by which another model is told."""
    full_cost: float
    """Cost of the full run."""
    curve: tuple[CurvePoint, ...]
    """By price, ascending."""
    prompt_count: int
    """Validation prompts behind each point."""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it was trained for, as readers want it: name to value."""
    licence: str = "apache-2.0"

    def speeds(self, steps: int) -> tuple[float, float]:
        """Least and greatest speed that is known of full runs of so many steps."""
        found = [1 / share for _, share in self._shares(steps)]
        return min(found), max(found)

    def cost(self, c_nfe: float, steps: int) -> float:
        """Mean cost of images at a price; outside what is known, that of the nearest."""
        known = self._shares(steps)
        logs = [math.log(price) for price, _ in known]
        return steps * float(np.interp(math.log(max(c_nfe, known[0][0])), logs, [share for _, share in known]))

    def price(self, speed: float, steps: int) -> float:
        """The price at which images cost a full run's ``steps / speed`` on average; clamps and warns where unknown."""
        least, greatest = self.speeds(steps)
        if not least <= speed <= greatest:
            _log.warning(
                "speed=%g is outside what this policy was measured at with %d steps, %.2f to %.2f: the nearest of them "
                "is taken.",
                speed,
                steps,
                least,
                greatest,
            )
        known = sorted(self._shares(steps), key=lambda pair: pair[1])
        logs = [math.log(price) for price, _ in known]
        return math.exp(float(np.interp(1 / speed, [share for _, share in known], logs)))

    def _shares(self, steps: int) -> list[tuple[float, float]]:
        """Each measured price with its images' share of a full run's cost, between numbers of steps interpolated."""
        counts = sorted({point.steps for point in self.curve})
        return [
            (price, float(np.interp(steps, counts, [self._share(price, count) for count in counts])))
            for price in sorted({point.c_nfe for point in self.curve})
        ]

    def _share(self, c_nfe: float, steps: int) -> float:
        points = sorted((point for point in self.curve if point.steps == steps), key=lambda point: point.c_nfe)
        logs, costs = [math.log(point.c_nfe) for point in points], [point.cost for point in points]
        return float(np.interp(math.log(c_nfe), logs, costs)) / steps

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "backbone": self.backbone,
            "digest": list(self.digest),
            "full_cost": self.full_cost,
            "prompt_count": self.prompt_count,
            "licence": self.licence,
            "facts": dict(self.facts),
            "curve": [
                {"c_nfe": point.c_nfe, "cost": point.cost, "steps": point.steps, "scores": dict(point.scores)}
                for point in self.curve
            ],
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The card that ``plain`` wrote."""
        return cls(
            backbone=plain["backbone"],
            digest=tuple(plain["digest"]),
            full_cost=plain["full_cost"],
            prompt_count=plain["prompt_count"],
            licence=plain["licence"],
            facts=plain["facts"],
            # Cards of before were measured on the full run alone.
            curve=tuple(CurvePoint(**{"steps": round(plain["full_cost"])} | point) for point in plain["curve"]),
        )

    def write(self, folder: Path) -> None:
        """Write the card beside its policy, for programs and for readers.

        Raises:
            OutputError: the folder can't be written.
        """
        write_text(folder / CARD_FILE, json.dumps(self.plain(), indent=2) + "\n")
        write_text(folder / README_FILE, self.readme())

    def readme(self) -> str:
        """A model card in the hub's form."""
        facts = [f"| {name} | {value} |" for name, value in self.facts.items()]
        scores = list(dict.fromkeys(name for point in self.curve for name in point.scores))
        head = ["steps", "price of one NFE", "mean cost", "speed", *scores]
        rows = [
            _row(
                [f"{point.steps}", f"{point.c_nfe:g}", f"{point.cost:.2f}", f"{point.steps / point.cost:.2f}"],
                point,
                scores,
            )
            for point in self.curve
        ]
        measured = [
            f"Means over {self.prompt_count} validation prompts, one image each; the full run costs its steps, "
            f"{self.full_cost:g} by default.",
            "",
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
            *rows,
            "",
        ]
        return "\n".join(
            [
                "---",
                "library_name: addiffusion",
                f"license: {self.licence}",
                "tags: [text-to-image, diffusers, adaptive-compute]",
                "---",
                "",
                "# A policy for adaptive compute",
                "",
                f"Decides for each image and step of a diffusion model: {self.facts.get('actions', 'what to do')}.",
                "",
                "```python",
                "from addiffusion import AdaptivePipeline",
                "",
                'pipe = AdaptivePipeline.from_pretrained("the model below", policy="this folder")',
                f'images = pipe("a prompt"{", speed=2" if self.curve else ""}).images',
                "```",
                "",
                "## What it was trained for",
                "",
                "| | |",
                "|---|---|",
                *facts,
                "",
                "On another model or setting it decides by what it learned on this one; the pipeline warns.",
                "",
                "## What images cost",
                "",
                *(measured if self.curve else ["Not measured: `speed=` knows no price for it; give `c_nfe=`.", ""]),
            ]
        )


def _row(cells: list[str], point: CurvePoint, scores: Sequence[str]) -> str:
    values = [f"{point.scores[name]:.3f}" if name in point.scores else "" for name in scores]
    return f"| {' | '.join([*cells, *values])} |"


def weight_digest(network: nn.Module) -> tuple[float, ...]:
    """A few values of a few tensors of a network, spread over it; empty where they lie elsewhere than in memory."""
    named = sorted(network.named_parameters(), key=lambda pair: pair[0])
    chosen = [named[int(place)][1] for place in np.linspace(0, len(named) - 1, min(_TENSORS, len(named)))]
    if any(tensor.is_meta or not tensor.is_floating_point() for tensor in chosen):
        return ()
    values = [tensor.detach().flatten()[:_VALUES].float().cpu().numpy() for tensor in chosen]
    return tuple(float(value) for value in np.concatenate(values))


def same_weights(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two digests are of one network, whatever precision it is in; a missing one is no reason to doubt."""
    if not first or not second:
        return True
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=_TOLERANCE, atol=1e-4))
