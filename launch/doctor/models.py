"""Which models a configuration needs, where they lie, and how much memory they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors import safe_open

from addiffusion.assets import WEIGHTS_FOLDER
from addiffusion.config import Config

GIB: Final = 2**30
GATE_GB: Final = 35.0
"""Denoiser and all scorers have to fit, where there is no GPU to ask: SD 1.5 and everything that judges it do."""
_ACTIVATIONS: Final = 1.25
"""Weights times this, as a rule of thumb for what a pass needs besides them."""
_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
_PIPELINES: Final = {
    "stable_diffusion": 1_066_000_000,
    "sdxl": 3_469_000_000,
    "sd3": 7_690_000_000,
    "flux": 16_870_000_000,
}
"""Parameters of a pipeline with its text encoders and autoencoder."""
_SCORERS: Final = {
    "clip": 427_600_000,
    "aesthetic": 864_000,
    "image_reward": 446_700_000,
    "dino": 21_700_000,
    "hps": 986_000_000,
    "pickscore": 986_000_000,
}
_SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One model."""

    name: str
    source: str
    """As the configuration names it."""
    path: Path | None
    """Where it lies on this machine; None if it does not."""
    parameters: int
    bytes_each: int = 4
    """Of a parameter in memory."""

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
    return part.parameters * part.bytes_each * _ACTIVATIONS


def parts_of(config: Config) -> list[Part]:
    """The denoiser's pipeline and every scorer of ``config``."""
    scorers = _embedded_scorers() if config.scorers.kind == "embedded" else _pretrained_scorers(config)
    return [_pipeline(config), *scorers]


def _pipeline(config: Config) -> Part:
    section = config.backbone
    if section.path is None:
        folder = WEIGHTS_FOLDER / "pipeline"
        return Part(name="backbone embedded", source="shipped", path=folder, parameters=_count(folder))
    return Part(
        name=f"backbone {section.kind}",
        source=section.path,
        path=_find(section.path, "model_index.json"),
        parameters=_PIPELINES[section.kind],
        bytes_each=_BYTES[section.dtype],
    )


def _embedded_scorers() -> list[Part]:
    folders = [WEIGHTS_FOLDER / name for name in ("clip", "aesthetic", "preference", "dino")]
    return [
        Part(name=f"scorer {folder.name}", source="shipped", path=folder, parameters=_count(folder))
        for folder in folders
        if folder.is_dir()
    ]


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
    return [
        Part(
            name=f"scorer {name}",
            source=sources[name][0],
            path=_find(*sources[name]),
            parameters=_SCORERS[name],
        )
        for name in wanted
    ]


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
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.suffix in _SUFFIXES]


def _count(folder: Path) -> int:
    return sum(map(_parameters, folder.rglob("*.safetensors")))


def _parameters(file: Path) -> int:
    total = 0
    with safe_open(file, framework="np") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            size = 1
            for side in opened.get_slice(name).get_shape():
                size *= side
            total += size
    return total
