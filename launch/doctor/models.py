"""Which models a configuration needs, where they lie, and how much memory they take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors import safe_open

from addiffusion.assets import WEIGHTS_FOLDER
from addiffusion.backbones.model_files import decoder_widths, own_image_size, read_object
from addiffusion.backbones.part_files import NETWORKS, WHOLE, weights_in
from addiffusion.config import Config
from addiffusion.errors import WeightsError
from addiffusion.weights import LOAD_FAILURES, gist

GIB: Final = 2**30
GATE_GB: Final = 35.0
"""Denoiser and all scorers have to fit, where there is no GPU to ask: SD 1.5 and everything that judges it do."""
_T5: Final = 4_762_000_000
_ACTIVATIONS: Final = 1.25
"""Weights times this, as a rule of thumb for what a pass needs besides them."""
_DECODE_TENSORS: Final = 4
"""Tensors of an image's full size and the decoder's second width that are in memory at once: measured 3 to 4."""
_FULL: Final = 4
"""Bytes of a float32."""
_BYTES: Final = {"float32": _FULL, "bfloat16": 2, "float16": 2}
_PIPELINES: Final = {
    "stable_diffusion": (860_000_000, 206_000_000),
    "sdxl": (2_567_000_000, 902_000_000),
    "sd3": (2_085_000_000 + _T5, 902_000_000),
    "flux": (11_901_000_000 + _T5, 207_000_000),
}
"""Parameters in ``backbone.dtype`` and in float32 of pipelines whose files are not here."""
_SCORERS: Final = {
    "clip": 427_600_000,
    "aesthetic": 864_000,
    "image_reward": 446_700_000,
    "dino": 21_700_000,
    "hps": 986_000_000,
    "pickscore": 986_000_000,
}
"""The same of scorers."""
_SAFETENSORS: Final = ".safetensors"
_PICKLES: Final = (".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One model."""

    name: str
    source: str
    """As the configuration names it."""
    path: Path | None
    """Where it lies on this machine; None if it does not."""
    parameters: int
    weights_bytes: int
    """Its parameters in memory."""

    @property
    def bytes_on_disk(self) -> int:
        """Of its weights; 0 where they are not here."""
        return sum(file.stat().st_size for file in _weight_files(self.path)) if self.path else 0

    @property
    def from_hub(self) -> bool:
        """Whether the source is no local path, so that it can still be fetched."""
        return not self.source.startswith((".", "/", "~"))


def needed_bytes(part: Part) -> float:
    """Memory a model takes while it works, roughly."""
    return part.weights_bytes * _ACTIVATIONS


def decode_bytes(config: Config) -> float:
    """Memory that decoding ``backbone.decode_batch`` images takes; 0 where the model's small files are not here."""
    side = own_image_size(config.backbone)
    widths = decoder_widths(config.backbone)
    if side is None or widths is None:
        return 0
    images = min(config.backbone.decode_batch, config.rollout.slots)
    return images * side**2 * _DECODE_TENSORS * widths[min(1, len(widths) - 1)] * _FULL


def parts_of(config: Config) -> list[Part]:
    """The denoiser's pipeline and every scorer of ``config``."""
    scorers = _embedded_scorers() if config.scorers.kind == "embedded" else _pretrained_scorers(config)
    return [_pipeline(config), *scorers]


def _pipeline(config: Config) -> Part:
    section, name = config.backbone, f"backbone {config.backbone.kind}"
    if section.path is None:
        return _shipped(name, WEIGHTS_FOLDER / "pipeline")
    path, each = _find(section.path, "model_index.json"), _BYTES[section.dtype]
    if path is None or not path.is_dir():
        cast, full = _PIPELINES[section.kind]
        parameters, size = cast + full, cast * each + full * _FULL
    else:
        counts = {part.name: (_count(part), _is_cast(part)) for part in path.iterdir() if part.is_dir()}
        parameters = sum(count for count, _ in counts.values())
        size = sum(count * (each if cast else _FULL) for count, cast in counts.values())
    return Part(name=name, source=section.path, path=path, parameters=parameters, weights_bytes=size)


def _is_cast(part: Path) -> bool:
    """Whether a part of a pipeline works in ``backbone.dtype``: the network, and T5 among the text encoders."""
    file = part / "config.json"
    return part.name in NETWORKS or (file.is_file() and read_object(file).get("model_type") == "t5")


def _shipped(name: str, folder: Path) -> Part:
    count = _count(folder)
    return Part(name=name, source="shipped", path=folder, parameters=count, weights_bytes=count * _FULL)


def _embedded_scorers() -> list[Part]:
    folders = [WEIGHTS_FOLDER / name for name in ("clip", "aesthetic", "preference", "dino")]
    return [_shipped(f"scorer {folder.name}", folder) for folder in folders if folder.is_dir()]


def _pretrained_scorers(config: Config) -> list[Part]:
    section = config.scorers
    sources = {
        "clip": (section.clip.weights or section.clip.model, "open_clip_model.safetensors"),
        "aesthetic": (section.aesthetic.weights, "sac+logos+ava1-l14-linearMSE.pth"),
        "image_reward": (section.image_reward.weights, "ImageReward.pt"),
        "dino": (section.dino.weights or section.dino.model, "model.safetensors"),
        "hps": (section.hps.weights, "HPS_v2.1_compressed.pt"),
        "pickscore": (section.pickscore.weights, "model.safetensors"),
    }
    wanted = [name for name in sources if name not in {"hps", "pickscore"} or name in section.metrics]
    return [_scorer(name, *sources[name]) for name in wanted]


def _scorer(name: str, source: str, filename: str) -> Part:
    path = _find(source, filename)
    parameters = _SCORERS[name] if path is None else _count(path)
    return Part(
        name=f"scorer {name}", source=source, path=path, parameters=parameters, weights_bytes=parameters * _FULL
    )


def _find(source: str, filename: str) -> Path | None:
    local = Path(source)
    if local.exists():
        return local
    repository, _, other = source.partition(":")
    if "/" not in repository or source.startswith((".", "/", "~")):
        return None
    found = try_to_load_from_cache(repository, other or filename, cache_dir=HF_HUB_CACHE)
    return Path(found).parent if isinstance(found, str) else None


def _weight_files(path: Path) -> list[Path]:
    """Files that are loaded: a folder may hold its weights in several forms."""
    if path.is_file():
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.suffix in {_SAFETENSORS, *_PICKLES}]
    folders = {file.parent: weights_in(file.parent).names for file in files}
    return [file for file in files if not folders[file.parent] or file.name in folders[file.parent]]


def _count(path: Path) -> int:
    """Parameters, from the files' headers alone."""
    return sum(map(_parameters, _weight_files(path)))


def _parameters(file: Path) -> int:
    try:
        return _of_safetensors(file) if file.suffix == _SAFETENSORS else _of_pickle(file)
    except LOAD_FAILURES as error:
        raise WeightsError(f"{file} can't be read as weights ({gist(error)}): {WHOLE}.", path=str(file)) from error


def _of_safetensors(file: Path) -> int:
    with safe_open(file, framework="np") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118 - no mapping


def _of_pickle(file: Path) -> int:
    tree = torch.load(file, map_location="meta", weights_only=True)
    tensors = tree.get("state_dict", tree)
    return sum(tensor.numel() for tensor in tensors.values() if isinstance(tensor, torch.Tensor))
