"""What lies in the folder of one part of a pipeline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from addiffusion.errors import WeightsError
from addiffusion.json_object import is_object

WHOLE: Final = "copy or download the whole folder again"
"""Advice for a part that is damaged, incomplete or of something else."""
PIPELINES: Final = {
    "stable_diffusion": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
"""Classes that the values of ``backbone.kind`` stand for."""
PIPELINE_ADVICE: Final = "give a folder with a model_index.json, or a hub id that can be reached"
"""Advice for what is no pipeline at all."""
UNETS: Final = ("embedded", "stable_diffusion", "sdxl")
"""Values of ``backbone.kind`` whose denoiser is a UNet."""
NETWORKS: Final = ("unet", "transformer")
"""Names that a denoiser has among a pipeline's parts."""
_SAFETENSORS: Final = ".safetensors"
_WEIGHTS = re.compile(
    r"^(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)$"
)
"""Names diffusers and transformers save weights under: whole or in shards, plain or of a variant."""


def network_name(kind: str) -> str:
    """The denoiser's name among the parts of a pipeline of this ``backbone.kind``."""
    return NETWORKS[kind not in UNETS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Which of a folder's files are loaded."""

    variant: str | None
    """The middle of ``model.fp16.safetensors``; None for ``model.safetensors``."""
    path: str
    """The file, or the folder where there are several or none."""
    names: tuple[str, ...]
    """Of the files: whole or shards; empty for a hub id."""


def weights_in(source: str | Path) -> Weights:
    """The weights of a local folder: the plain ones, else those of its only variant. A hub id has plain ones.

    Raises:
        WeightsError: there are several variants and no plain weights.
    """
    folder = Path(source)
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    found = {name: match["variant"] for name in names if (match := _WEIGHTS.match(name))}
    variants = set(found.values())
    if len(variants) > 1 and None not in variants:
        listed = " and ".join(sorted(variant for variant in variants if variant))
        raise WeightsError(
            f"{folder} holds its weights in the variants {listed} and in no plain form: leave the files of one of them "
            "there.",
            variants=listed,
        )
    variant = None if None in variants else next(iter(variants), None)
    files = [name for name, other in found.items() if other == variant]
    # Where there are both kinds, the libraries take safetensors.
    files = [name for name in files if name.endswith(_SAFETENSORS)] or files
    return Weights(variant=variant, path=str(folder / files[0]) if len(files) == 1 else str(source), names=tuple(files))


def whole_weights(source: str | Path, *, part: str, named: str) -> Weights:
    """What is loaded of a part, none of it missing or cut off: only the headers of its files are read for that.

    Args:
        source: local folder, or a hub id, of which nothing is read.
        part: name of the model.
        named: key and value of the configuration.

    Raises:
        WeightsError: names the file.
    """
    found = weights_in(source)
    try:
        _check_shards(Path(source), found)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{named}: {part} can't be loaded from {source} ({error}): {WHOLE}.", part=part) from error
    return found


def _check_shards(folder: Path, weights: Weights) -> None:
    middle = f".{weights.variant}" if weights.variant else ""
    # An index of .bin files may have been left there without them.
    form = _SAFETENSORS if any(name.endswith(_SAFETENSORS) for name in weights.names) else ""
    for index in folder.glob(f"*{form}.index{middle}.json"):
        found: Any = json.loads(index.read_text(encoding="utf-8"))
        listed: Mapping[str, Any] = found.get("weight_map", {}) if is_object(found) else {}
        if missing := sorted({*map(str, listed.values())} - {file.name for file in folder.iterdir()}):
            raise FileNotFoundError(f"there is no {missing[0]}, which {index.name} names")
    for name in filter(lambda name: name.endswith(_SAFETENSORS), weights.names):
        try:
            with safe_open(folder / name, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise OSError(f"{name}: {error}") from error


def refuse_file(named: str, source: str, pipeline: str) -> None:
    """Refuse a checkpoint in one file, which says too little of its parts.

    Args:
        named: key and value of the configuration.
        source: the same value.
        pipeline: class of the family.

    Raises:
        WeightsError: it is a file; the sentence has the command that makes a folder of it.
    """
    if Path(source).is_file():
        raise WeightsError(
            f'{named} is a single file: make a folder of it once, by `python -c "from diffusers import {pipeline}; '
            f"{pipeline}.from_single_file({source!r}).save_pretrained('FOLDER')\"`, and give that folder.",
            path=source,
        )


def check_vocabulary(kind: Any, folder: Path) -> None:
    """A tokenizer without its files would be built empty.

    Raises:
        FileNotFoundError: neither ``tokenizer.json`` nor the files of the class's own form lie there.
    """
    names = dict(kind.vocab_files_names)
    whole = names.pop("tokenizer_file", None)
    missing = sorted(name for name in names.values() if not (folder / name).is_file())
    if missing and not (whole and (folder / whole).is_file()):
        raise FileNotFoundError(f"there is no {' and no '.join([*missing, *([whole] if whole else [])])}")
