"""Writing the pieces of a diffusers ``StableDiffusionPipeline`` folder so that any machine loads them silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Protocol

from diffusers import __version__ as diffusers_version

from addiffusion.embedded.quiet_loading import quiet_loading

_PIECES: Final[dict[str, tuple[str | None, str | None]]] = {
    "feature_extractor": (None, None),
    "image_encoder": (None, None),
    "safety_checker": (None, None),
    "scheduler": ("diffusers", "DDIMScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderTiny"),
}


class Saveable(Protocol):
    """What diffusers and transformers objects have in common here."""

    def save_pretrained(self, save_directory: str) -> object:
        """Writes configuration and weights into a folder."""
        ...


def save_module(module: Saveable, folder: Path) -> None:
    """Saves one piece; absolute paths of the machine that trained it are left out of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_loading():
        module.save_pretrained(str(folder))
    for path in folder.glob("*config.json"):
        config: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if config.get("_class_name") == "AutoencoderTiny":  # derived, and warned about when it is given
            config.pop("block_out_channels", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


def save_index(folder: Path) -> None:
    """Writes ``model_index.json``, which makes ``folder`` a pipeline."""
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers_version}
    text = json.dumps({**index, **_PIECES, "requires_safety_checker": False}, indent=2, sort_keys=True)
    (folder / "model_index.json").write_text(text + "\n", encoding="utf-8")
