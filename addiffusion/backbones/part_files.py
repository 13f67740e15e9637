"""What lies in the folder of one part of a pipeline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from addiffusion.errors import WeightsError

WHOLE: Final = "copy or download the whole folder again"
"""Advice for a part that is damaged, incomplete or of something else."""
PIPELINE_ADVICE: Final = "give a folder with a model_index.json, or a hub id that can be reached"
"""Advice for what is no pipeline at all."""
_WEIGHTS = re.compile(
    r"^(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)$"
)
"""Names diffusers and transformers save weights under: whole or in shards, plain or of a variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Which of a folder's files are loaded."""

    variant: str | None
    """The middle of ``model.fp16.safetensors``; None for ``model.safetensors``."""
    path: str
    """The file, or the folder where there are several or none."""


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
    files = [name for name in files if name.endswith(".safetensors")] or files
    return Weights(variant=variant, path=str(folder / files[0]) if len(files) == 1 else str(source))


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
