"""What a pipeline's small files say of it, so that a run can be refused before anything large is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from addiffusion.assets import weights_path
from addiffusion.backbones.base import Scheduler
from addiffusion.backbones.part_files import WHOLE, network_name
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError
from addiffusion.json_object import is_object

_FLUX_LATENT = 128
"""Flux has no size in its files: the pipeline's own default, in latent pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """What ``scheduler_config.json`` says."""

    file: Path
    values: Mapping[str, Any]


def read_object(file: Path) -> Mapping[str, Any]:
    """The JSON object that one of a model's small files holds.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it can't be read, or is none.
    """
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise _unread(file, str(error)) from error
    if not is_object(found):
        raise _unread(file, f"it holds a {type(found).__name__}")
    return found


def _unread(file: Path, reason: str) -> WeightsError:
    return WeightsError(f"{file} can't be read as a JSON object ({reason}): {WHOLE}.", path=str(file), reason=reason)


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
    network = network_name(section.kind)
    latent = _FLUX_LATENT if section.kind == "flux" else _found(folder / network / "config.json").get("sample_size")
    widths = decoder_widths(section)
    return latent * 2 ** (len(widths) - 1) if isinstance(latent, int) and widths is not None else None


def decoder_widths(section: BackboneSection) -> tuple[int, ...] | None:
    """Channels of each level of the autoencoder, that of the image first; None where its file is not on this machine.

    Raises:
        WeightsError: the file is no JSON object.
    """
    folder = pipeline_folder(section)
    if folder is None:
        return None
    vae = _found(folder / "vae" / "config.json")
    blocks = vae.get("block_out_channels", vae.get("decoder_block_out_channels"))  # a tiny autoencoder has the latter
    return tuple(cast("list[int]", blocks)) if isinstance(blocks, list) else None


def scheduler_options(section: BackboneSection) -> SchedulerOptions | None:
    """Options of the pipeline's own scheduler; None where their file is not on this machine.

    Raises:
        WeightsError: the file is no JSON object.
    """
    folder = pipeline_folder(section)
    file = None if folder is None else folder / "scheduler" / "scheduler_config.json"
    return SchedulerOptions(file=file, values=read_object(file)) if file is not None and file.is_file() else None


def scheduler_of(options: SchedulerOptions) -> Scheduler | None:
    """The scheduler of these options; None where diffusers has none of its name.

    Raises:
        WeightsError: no scheduler of its name takes them.
    """
    from diffusers import schedulers  # noqa: PLC0415 - takes seconds to import

    name = str(options.values.get("_class_name"))
    kind = getattr(schedulers, name, None)
    if kind is None:
        return None
    try:
        return kind.from_config(dict(options.values))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"{options.file} can't be laid out as a {name} ({error}): {WHOLE}.", path=str(options.file)
        ) from error


def _found(file: Path) -> Mapping[str, Any]:
    """A file's object; empty where there is no such file."""
    return read_object(file) if file.is_file() else {}
