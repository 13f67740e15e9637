"""`addiffusion embedded prompts`: the benchmark's prompts as text or JSON lines, for other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from addiffusion.config import PromptsSection
from addiffusion.embedded.world import Split
from addiffusion.files import write_text
from addiffusion.prompts import load_prompts
from addiffusion.records import Prompt


def prompt_lines(split: Split, *, count: int, tiers: Sequence[int], seed: int, as_json: bool) -> list[str]:
    """``count`` prompts of the tiers in turn: captions alone, or objects with prompt_id, tier, split and text.

    Args:
        split: of the embedded world.
        count: lines.
        tiers: 1 to 3; none: all of them.
        seed: of the draw, as run.seed of a run.
        as_json: objects instead of captions.
    """
    chosen: Any = tuple(dict.fromkeys(tiers)) or PromptsSection().tiers
    prompts = load_prompts(PromptsSection(tiers=chosen), split=split, count=count, seed=seed)
    return [_json_line(prompt, split) if as_json else prompt.text for prompt in prompts]


def write_prompts(path: Path, lines: Sequence[str]) -> None:
    """Write one prompt per line, whole or not at all.

    Raises:
        OutputError: the file can't be written.
    """
    write_text(path, "".join(f"{line}\n" for line in lines))


def _json_line(prompt: Prompt, split: Split) -> str:
    return json.dumps({"prompt_id": prompt.prompt_id, "tier": prompt.tier, "split": split, "text": prompt.text})
