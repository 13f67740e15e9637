"""What earlier versions wrote into configuration files, as this one says it: what exists goes on as it did."""

from __future__ import annotations

from typing import Any

from addiffusion.configuration.yaml import Tree


def updated(tree: Tree) -> Tree:
    """``tree`` of a file, with keys of the past replaced by what means the same here; others are left as they are."""
    rollout: Any = tree.get("rollout")
    if not isinstance(rollout, dict):
        return tree
    if rollout.get("groups") == 2:  # half of the slots in a pass: what rows are by themselves
        del rollout["groups"]
    elif rollout.get("groups") == 1 and isinstance(rollout.get("slots"), int):
        backbone: Any = tree.get("backbone") or {}
        rollout["rows"] = rollout["slots"] * (2 if backbone.get("guidance_scale", 3.5) > 1 else 1)
        del rollout["groups"]
    return tree
