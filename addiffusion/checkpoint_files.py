"""Names of a checkpoint's files, and how they are found and read: whoever uses a policy needs no learner.

A checkpoint folder holds ``policy.safetensors`` and ``value.safetensors`` (network states), ``optimizer.pt`` and
``state.json`` (everything else, with a checksum of each other file).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from addiffusion.errors import CheckpointError
from addiffusion.files import put_aside
from addiffusion.json_object import is_object

SCHEMA_VERSION = 1
CHECKPOINTS = "checkpoints"
"""Folder of a run that holds its checkpoints."""
BEST = "best"
"""Link in that folder to the checkpoint of the highest score; where there are no links, a file with its name."""
STATE_FILE = "state.json"
POLICY_FILE = "policy.safetensors"
NAME = re.compile(r"iteration-\d{6}")


def followed(path: Path) -> Path:
    """The checkpoint folder that ``path`` means: itself, or the one that a file called ``best`` names."""
    if path.name != BEST or not path.is_file():
        return path
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    return path.with_name(name) if NAME.fullmatch(name) else path


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first; half-written ones are not among them.

    One that a kill left aside, before what should replace it stood, is read where it lies.
    """
    home = run_dir / CHECKPOINTS
    names = {found[0] for path in home.glob("iteration-*") if (found := NAME.match(path.name))}
    places = ((home / name, put_aside(home / name)) for name in sorted(names))
    return [folder if folder.is_dir() else aside for folder, aside in places if folder.is_dir() or aside.is_dir()]


def latest_checkpoint(run_dir: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: there is none.
    """
    folders = list_checkpoints(run_dir)
    if not folders:
        raise CheckpointError(
            f"There is no checkpoint in {run_dir / CHECKPOINTS}: give the folder of a run that has reached its first "
            "checkpoint (see checkpoint.every).",
            run_dir=str(run_dir),
        )
    return folders[-1]


def read_state(folder: Path) -> Mapping[str, Any]:
    """What a checkpoint's ``state.json`` says.

    Raises:
        CheckpointError: it is missing, damaged, or of another schema version.
    """
    path = folder / STATE_FILE
    try:
        state: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {STATE_FILE}.", path=str(path)) from error
    except ValueError as error:
        raise damaged(path, "it is not JSON") from error
    if not is_object(state) or state.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} does not say schema_version {SCHEMA_VERSION}, the only one this version of addiffusion reads.",
            path=str(path),
        )
    return state


def read_checked(path: Path, sha256: str) -> bytes:
    """A file of a checkpoint, with the checksum that ``state.json`` has of it.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(path, f"its checksum is not the one in {STATE_FILE}")
    return content


def damaged(path: Path, reason: str) -> CheckpointError:
    """One sentence about a file of a checkpoint that can't be used."""
    return CheckpointError(
        f"The checkpoint file {path} can't be used: {reason}. Resume from an older checkpoint by deleting the folder "
        f"{path.parent}.",
        path=str(path),
        reason=reason,
    )
