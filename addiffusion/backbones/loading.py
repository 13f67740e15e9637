"""Pipelines from a folder or the hub, without the noise libraries make meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from addiffusion.config import BackboneSection
from addiffusion.embedded.assets import weights_path
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
    """The tiny autoencoder a configuration names, None without one.

    Raises:
        WeightsError: it can't be loaded.
    """
    if section.preview is None:
        return None
    hint = "a folder with an AutoencoderTiny's config.json"
    return _load(AutoencoderTiny, section.preview, key="backbone.preview", hint=hint)


def _load(kind: Any, source: str | Path, *, key: str, hint: str, **options: Any) -> Any:
    try:
        with quiet():
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


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings while a pipeline loads: it is checked here, and it is cast on purpose."""
    libraries = (diffusers_logging, transformers_logging)
    before = [(library, library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, bars in before:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
