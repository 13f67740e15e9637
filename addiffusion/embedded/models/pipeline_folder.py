"""Writing the pieces of a diffusers ``StableDiffusionPipeline`` folder so that any machine loads them silently."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Final, Protocol

from diffusers import __version__ as diffusers_version
from safetensors import SafetensorError

from addiffusion.files import whole_folder, write_text
from addiffusion.quiet_loading import quiet_loading

_OS_ERROR: Final = re.compile(r"os error (\d+)")
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
    """Saves one piece, whole or not at all; absolute paths of the machine that trained it are left out of its config.

    Raises:
        OutputError: the disk is full, or can't be written.
    """
    with whole_folder(folder) as draft:
        _save(module, draft)


def _save(module: Saveable, folder: Path) -> None:
    try:
        with quiet_loading():
            module.save_pretrained(str(folder))
    except SafetensorError as error:  # of the file system, which it says in words only
        number = int(found[1]) if (found := _OS_ERROR.search(str(error))) else errno.EIO
        raise OSError(number, os.strerror(number)) from error
    for path in folder.glob("*config.json"):
        config: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if config.get("_class_name") == "AutoencoderTiny":  # derived, and warned about when it is given
            config.pop("block_out_channels", None)
        write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_index(folder: Path) -> None:
    """Writes ``model_index.json``, which makes ``folder`` a pipeline."""
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers_version}
    text = json.dumps({**index, **_PIECES, "requires_safety_checker": False}, indent=2, sort_keys=True)
    write_text(folder / "model_index.json", text + "\n")
