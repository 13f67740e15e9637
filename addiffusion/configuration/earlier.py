"""What earlier versions wrote into configuration files, as this one says it: what exists goes on as it did."""

from __future__ import annotations

from addiffusion.configuration.yaml import Tree
from addiffusion.json_object import is_object

_SECTIONS = frozenset(
    (
        "alarms",
        "backbone",
        "bank",
        "checkpoint",
        "cluster",
        "curriculum",
        "evaluation",
        "observation",
        "policy",
        "ppo",
        "prompts",
        "refine",
        "resume",
        "reward",
        "rollout",
        "run",
        "sampler",
        "scorers",
        "tracking",
        "warm_start",
    )
)
"""What every version has written into the configuration of a run."""


def is_whole(tree: Tree) -> bool:
    """Whether a file is the whole configuration of a run or policy.

    Of keys that are newer than it the code's defaults hold, under which it goes on as it did: none of the shipped
    files, which may say otherwise of them today.
    """
    return tree.keys() >= _SECTIONS


def updated(tree: Tree) -> Tree:
    """``tree`` of a file, with keys of the past replaced by what means the same here; others are left as they are."""
    rollout, backbone = tree.get("rollout"), tree.get("backbone")
    if not is_object(rollout):
        return tree
    if rollout.get("groups") == 2:  # half of the slots in a pass: what rows are by themselves
        del rollout["groups"]
    elif rollout.get("groups") == 1 and isinstance(rollout.get("slots"), int):
        scale = backbone.get("guidance_scale", 3.5) if is_object(backbone) else 3.5
        rollout["rows"] = rollout["slots"] * (2 if scale > 1 else 1)
        del rollout["groups"]
    return tree
