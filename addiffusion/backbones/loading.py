"""Pipelines from a folder or the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from addiffusion.config import BackboneSection
from addiffusion.embedded.assets import weights_path
from addiffusion.embedded.quiet_loading import quiet_loading
from addiffusion.errors import ConfigError, WeightsError

_KINDS = {
    "StableDiffusionPipeline": "stable_diffusion",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}


def load_pipeline(section: BackboneSection, pipeline_class: Any, **options: Any) -> Any:
    """The pipeline a configuration names.

    Raises:
        WeightsError: the folder or hub id can't be loaded.
        ConfigError: the folder holds a pipeline of another family.
    """
    source = section.path if section.path is not None else weights_path("pipeline")
    _check_family(source, pipeline_class.__name__)
    return _load(pipeline_class, source, key="backbone.path", hint="a folder with a model_index.json", **options)


def load_preview(section: BackboneSection) -> Any | None:
    """The tiny autoencoder a configuration names, or that comes with the embedded model; None without one.

    Raises:
        WeightsError: it can't be loaded.
    """
    source = weights_path("preview") if section.preview is None and section.kind == "embedded" else section.preview
    if source is None:
        return None
    hint = "a folder with an AutoencoderTiny's config.json"
    return _load(AutoencoderTiny, source, key="backbone.preview", hint=hint)


def _load(kind: Any, source: str | Path, *, key: str, hint: str, **options: Any) -> Any:
    try:
        with quiet_loading():
            return kind.from_pretrained(source, low_cpu_mem_usage=False, **options)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{key}={str(source)!r} can't be loaded as a {kind.__name__} ({error}): give {hint}, or a hub id that can "
            "be reached.",
            path=str(source),
        ) from error


def _check_family(source: str | Path, expected: str) -> None:
    index = Path(source).expanduser() / "model_index.json"
    if not index.is_file():
        return
    found = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    if found != expected and found in _KINDS:
        raise ConfigError(
            f"backbone.path={str(source)!r} holds a {found}: set backbone.kind={_KINDS[found]}.", pipeline=found
        )
