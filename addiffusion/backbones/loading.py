"""Pipelines from a folder or the hub, taken only if they are of the family and each part's file fills it exactly."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from addiffusion.assets import weights_path
from addiffusion.backbones.model_index import read_index, unused_parts
from addiffusion.backbones.part_files import (
    NETWORKS,
    PIPELINE_ADVICE,
    WHOLE,
    check_vocabulary,
    refuse_file,
    whole_weights,
)
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError
from addiffusion.quiet_loading import quiet_loading
from addiffusion.weights import LOAD_FAILURES, gist, load_whole

_log = logging.getLogger(__name__)


def load_pipeline(
    section: BackboneSection, pipeline_class: Any, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """The pipeline a configuration names.

    Args:
        section: which, and where it lies.
        pipeline_class: of the family.
        dtype: of the denoiser, which is never in memory in a larger one.
        **options: of the class's ``from_pretrained``.

    Raises:
        WeightsError: the folder or hub id can't be loaded, or a file does not fill the part it is for.
        ConfigError: the folder holds a pipeline of another family.
    """
    source = str(section.path if section.path is not None else weights_path("pipeline"))
    named, unused = f"backbone.path={source!r}", dict.fromkeys(unused_parts(pipeline_class))
    refuse_file(named, source, pipeline_class.__name__)
    loadable = f"{named} can't be loaded as a {pipeline_class.__name__}"
    with _readable(loadable, PIPELINE_ADVICE):
        folder = Path(source if Path(source).is_dir() else pipeline_class.download(source, **unused))
    index = read_index(folder, pipeline_class, named=named)
    if index.spared:
        _log.warning("%s has no %s: prompts are read by the other text encoders alone.", named, index.spared[0])
    for name, kind in index.parts.items():  # gigabytes are read only where all of them are there
        if hasattr(kind, "state_dict"):
            whole_weights(folder / name, part=name, named=named)
    of_network = {"torch_dtype": dtype}
    parts = {
        name: _load_part(name, kind, folder / name, named, **(of_network if name in NETWORKS else {}))
        for name, kind in index.parts.items()
    }
    with _readable(loadable, WHOLE):
        return pipeline_class.from_pretrained(folder, **unused, **dict.fromkeys(index.spared), **parts, **options)


def load_preview(section: BackboneSection) -> Any | None:
    """The tiny autoencoder a configuration names, or that comes with the embedded model; None without one.

    Raises:
        WeightsError: it can't be loaded, or is no AutoencoderTiny.
    """
    source = weights_path("preview") if section.preview is None and section.kind == "embedded" else section.preview
    if source is None:
        return None
    named = f"backbone.preview={str(source)!r}"
    advice = "give a folder with an AutoencoderTiny's config.json, or a hub id that can be reached"
    with _readable(f"{named} can't be loaded as an AutoencoderTiny", advice):
        kind: Any = AutoencoderTiny
        found = kind.load_config(source)["_class_name"]
    if found != AutoencoderTiny.__name__:
        raise WeightsError(f"{named} holds a model of class {found}, not an AutoencoderTiny: {advice}.", found=found)
    return _load_model("the preview decoder", AutoencoderTiny, source, named)


def _load_part(name: str, kind: Any, folder: Path, named: str, **options: Any) -> Any:
    if not hasattr(kind, "state_dict"):
        with _readable(f"{named}: {name} can't be loaded from {folder}", WHOLE):
            if name.startswith("tokenizer"):
                check_vocabulary(kind, folder)
            return kind.from_pretrained(folder)
    return _load_model(name, kind, folder, named, **options)


def _load_model(part: str, kind: Any, source: str | Path, named: str, **options: Any) -> Any:
    """A model whose tensors are exactly those of its file."""
    found = whole_weights(source, part=part, named=named)
    with _readable(f"{named}: {part} can't be loaded as a {kind.__name__} from {found.path}", WHOLE):
        where = f"{named} ({found.path})"
        return load_whole(kind, source, part=part, named=where, advice=WHOLE, variant=found.variant, **options)


@contextmanager
def _readable(what: str, advice: str) -> Generator[None]:
    """Turn what the model libraries raise over a file into one sentence."""
    try:
        with quiet_loading():
            yield
    except LOAD_FAILURES as error:
        raise WeightsError(f"{what} ({gist(error)}): {advice}.", cause=type(error).__name__) from error
