"""Folders of the four families: what they hold, and how they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from addiffusion.config import BackboneSection

KINDS = {"sd15": "stable_diffusion", "sdxl": "sdxl", "sd3": "sd3", "flux": "flux"}


MODELS = {
    "sd15": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    "flux": ("transformer", "vae", "text_encoder", "text_encoder_2"),
}


def section(family: str, folder: Path, **options: Any) -> BackboneSection:
    return BackboneSection.model_validate(
        {"kind": KINDS[family], "path": str(folder), "device": "cpu", "guidance_scale": 1.0} | options
    )


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
