"""The plan of a bank: model, schedule, finish, scorers and observation its numbers depend on, and its layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from addiffusion.assets import WEIGHTS_FOLDER
from addiffusion.config import Config
from addiffusion.config.sampling import IMAGE_KEYS
from addiffusion.errors import ArchiveError, ContractError
from addiffusion.files import make_folder, write_text
from addiffusion.json_object import is_object
from addiffusion.observation.layout import Layout

SCHEMA_VERSION = 1
PLAN_FILE = "bank.json"
_STRIDE_KEY = "every"
"""The stride in a plan's file, named after the configuration key ``bank.every``."""
_DEPENDS_ON: Any = {
    "backbone": set(IMAGE_KEYS),
    "sampler": True,
    "observation": True,
    "reward": {"scales"},
    "scorers": {"kind", "clip", "aesthetic", "dino", "image_reward"},
}
"""Keys of the configuration that a bank's numbers depend on. Scales are in phi."""
_NEVER_TAKEN = ("leap_steps", "max_redraws")
"""Keys about actions that no trajectory of a bank takes."""
REPLAYS = ("continue", "stop")
"""Actions whose outcome a trajectory knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPlan:
    """Content and layout of a bank."""

    identity: Mapping[str, Any]
    """``bank_identity`` of the configuration it was built with, by dotted key."""
    layout: Layout
    """Slices of phi."""
    split: str
    """Split of the prompts."""
    count: int
    """Trajectories planned."""
    stride: Annotated[int, Field(validation_alias=_STRIDE_KEY)]
    """n: stop was tried at every n-th decision."""
    metrics: tuple[str, ...]
    """Names of the metric columns."""
    shard_size: int
    """Trajectories per file."""
    replays: tuple[str, ...] = REPLAYS
    """Names of the actions that can be played from it."""

    def write(self, folder: Path) -> None:
        """Put the plan into ``folder``, which is made when missing."""
        make_folder(folder)
        values = {
            "schema_version": SCHEMA_VERSION,
            "identity": self.identity,
            "layout": {"names": self.layout.names, "widths": self.layout.widths},
            "split": self.split,
            "count": self.count,
            _STRIDE_KEY: self.stride,
            "metrics": self.metrics,
            "shard_size": self.shard_size,
            "replays": self.replays,
        }
        write_text(folder / PLAN_FILE, json.dumps(values, indent=2) + "\n")


_PLAN: Final = TypeAdapter(BankPlan)


def read_plan(folder: Path) -> BankPlan:
    """The plan of the bank in ``folder``.

    Raises:
        ArchiveError: there is no bank, or one of another schema version.
    """
    path = folder / PLAN_FILE
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArchiveError(
            f"{folder} is no trajectory bank: it has no {PLAN_FILE}; build one with `addiffusion bank build {folder}`.",
            path=str(folder),
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path} can't be read ({error}); build the bank anew.", path=str(path)) from error
    version = values.get("schema_version") if is_object(values) else None
    if version != SCHEMA_VERSION:
        raise ArchiveError(
            f"{path} says schema_version {version}, but this version of addiffusion reads {SCHEMA_VERSION}: build the "
            "bank anew.",
            path=str(path),
            version=version,
        )
    try:
        return _PLAN.validate_python({name: value for name, value in values.items() if name != "schema_version"})
    except (ValidationError, ContractError) as error:
        raise ArchiveError(f"{path} is damaged ({_first(error)}); build the bank anew.", path=str(path)) from error


def _first(error: ValidationError | ContractError) -> str:
    """The first thing that is wrong, in a few words."""
    if isinstance(error, ContractError):
        return error.message.rstrip(".")
    wrong = error.errors()[0]
    return f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"


def bank_identity(config: Config) -> dict[str, Any]:
    """Configuration that a bank depends on, by dotted key; ``weights`` is a digest of the model's files."""
    tree = config.model_dump(mode="json", include=_DEPENDS_ON)
    tree["sampler"] = {key: value for key, value in config.sampler.identity().items() if key not in _NEVER_TAKEN}
    if config.backbone.guidance_scale_range is not None:
        tree["backbone"]["guidance_scale_range"] = list(config.backbone.guidance_scale_range)
    tree["observation"] = config.observation.identity()
    return {**_flat(tree), "weights": _weights_digest(config)}


def check_fits(plan: BankPlan, config: Config, folder: Path) -> None:
    """Refuse a bank whose numbers are not those that ``config`` would give.

    Raises:
        ArchiveError: it was built with another model, schedule, finish, observation or scorers; the message names the
            keys.
    """
    expected = bank_identity(config)
    others = [key for key in sorted({*expected, *plan.identity}) if plan.identity.get(key) != expected.get(key)]
    if others:
        shown = ", ".join(f"{key} ({plan.identity.get(key)!r} there, {expected.get(key)!r} here)" for key in others)
        raise ArchiveError(
            f"The trajectory bank {folder} is of another configuration: {shown}. Build it anew with `addiffusion bank "
            "build`, or set these keys as they were.",
            path=str(folder),
            keys=others,
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if is_object(value) else {key: value}
    return flat


def _weights_digest(config: Config) -> str | None:
    """The embedded world's by content, a local pipeline's by names and sizes; None for a hub id."""
    if config.backbone.path is None:
        return _digest({path: path.read_bytes() for path in _files(WEIGHTS_FOLDER)})
    folder = Path(config.backbone.path)
    if not folder.is_dir():
        return None
    return _digest({path.relative_to(folder): str(path.stat().st_size).encode() for path in _files(folder)})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(parts: Mapping[Path, bytes]) -> str:
    total = hashlib.sha256()
    for path, content in parts.items():
        total.update(path.name.encode() + b"\x1f" + hashlib.sha256(content).digest())
    return total.hexdigest()[:16]
