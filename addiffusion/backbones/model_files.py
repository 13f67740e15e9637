"""What a pipeline's small files say of it, so that a run can be refused before anything large is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from addiffusion.assets import weights_path
from addiffusion.backbones.base import Scheduler
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError

_FLUX_LATENT = 128
"""Flux has no size in its files: the pipeline's own default, in latent pixels."""


def pipeline_folder(section: BackboneSection) -> Path | None:
    """Folder of the pipeline; None where its files are not on this machine (a hub id).

    Raises:
        WeightsError: the embedded weights are missing.
    """
    folder = weights_path("pipeline") if section.path is None else Path(section.path)
    return folder if folder.is_dir() else None


def own_image_size(section: BackboneSection) -> int | None:
    """Pixels per side of the images that a run draws; None where only the loaded model could tell.

    Raises:
        WeightsError: one of the model's configuration files is no JSON object.
    """
    folder = pipeline_folder(section)
    if section.image_size is not None or folder is None:
        return section.image_size
    network = "unet" if section.kind in {"embedded", "stable_diffusion", "sdxl"} else "transformer"
    latent = _FLUX_LATENT if section.kind == "flux" else _read(folder / network / "config.json").get("sample_size")
    vae = _read(folder / "vae" / "config.json")
    blocks = vae.get("block_out_channels", vae.get("decoder_block_out_channels"))  # a tiny autoencoder has the latter
    if not isinstance(latent, int) or not isinstance(blocks, list):
        return None
    return latent * 2 ** (len(blocks) - 1)


def scheduler_of(section: BackboneSection) -> Scheduler | None:
    """The pipeline's own scheduler; None where its file is not on this machine, or names none of diffusers.

    Raises:
        WeightsError: the file can't be read, or has options that no scheduler takes.
    """
    folder = pipeline_folder(section)
    if folder is None:
        return None
    from diffusers import schedulers  # noqa: PLC0415 - takes seconds to import

    file = folder / "scheduler" / "scheduler_config.json"
    options = _read(file)
    kind = getattr(schedulers, str(options.get("_class_name")), None)
    if kind is None:
        return None
    try:
        return kind.from_config(dict(options))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"{file} can't be laid out as a {options['_class_name']} ({error}): get the pipeline again.", path=str(file)
        ) from error


def train_timesteps(section: BackboneSection) -> int | None:
    """Timesteps that the model was trained on; None where its file is not on this machine, or does not say.

    Raises:
        WeightsError: the file is no JSON object.
    """
    folder = pipeline_folder(section)
    known = None if folder is None else _read(folder / "scheduler" / "scheduler_config.json").get("num_train_timesteps")
    return known if isinstance(known, int) else None


def _read(file: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is no such file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} can't be read ({error}): get the pipeline again.", path=str(file)) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file} is no JSON object: get the pipeline again.", path=str(file))
    return found
