"""Checkpoints: written beside, then renamed, so that a folder is either whole or not there.

A checkpoint folder holds ``policy.safetensors`` and ``value.safetensors`` (network states), ``optimizer.pt``
(loadable with ``weights_only=True``) and ``state.json`` (everything else, with a checksum of each other file).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from addiffusion.config import Config
from addiffusion.errors import CheckpointError
from learner.state import LearnerState
from learner.tickets import LedgerState

SCHEMA_VERSION = 1
CHECKPOINTS = "checkpoints"
"""Folder of a run that holds its checkpoints."""
STATE_FILE = "state.json"
POLICY_FILE = "policy.safetensors"
VALUE_FILE = "value.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
PAYLOAD_FILES = (POLICY_FILE, VALUE_FILE, OPTIMIZER_FILE)
NAME = re.compile(r"iteration-\d{6}")
LEARNED_FROM: Any = {
    "run": {"seed"},
    "backbone": {"kind", "path", "guidance_scale"},
    "scorers": {"kind"},
    **dict.fromkeys(("sampler", "refine", "observation", "reward", "policy", "warm_start", "ppo", "prompts"), True),
}
"""Keys of the configuration a learner's state depends on; where and how a run is spread out is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All a run needs to go on as if it had never stopped. Random streams are derived, so none is stored."""

    learner: LearnerState
    ledger: LedgerState
    config_digest: str
    """Of the configuration the state belongs to; see ``config_digest``."""

    @property
    def iteration(self) -> int:
        """The next iteration, which is also the version of the weights."""
        return self.ledger.iteration


def config_digest(config: Config) -> str:
    """A digest of ``LEARNED_FROM``: states with the same digest can replace each other."""
    text = json.dumps(config.model_dump(mode="json", include=LEARNED_FROM), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint into ``run_dir`` and delete all but the newest and ``keep`` before it.

    Returns:
        Its folder, ``run_dir/checkpoints/iteration-<n>``.
    """
    folder = run_dir / CHECKPOINTS / f"iteration-{checkpoint.iteration:06d}"
    write_checkpoint(folder, checkpoint)
    for outdated in list_checkpoints(run_dir)[: -(keep + 1)]:
        shutil.rmtree(outdated)
    return folder


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder`` atomically; a folder of that name is replaced."""
    payload = {
        POLICY_FILE: save_safetensors(checkpoint.learner.policy),
        VALUE_FILE: save_safetensors(checkpoint.learner.value),
        OPTIMIZER_FILE: _torch_bytes(checkpoint.learner.optimizer),
    }
    state = {
        "schema_version": SCHEMA_VERSION,
        "weight_version": checkpoint.iteration,
        "config_digest": checkpoint.config_digest,
        "ledger": asdict(checkpoint.ledger),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in payload.items()},
    }
    payload[STATE_FILE] = json.dumps(state, indent=2).encode()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in payload.items():
        _write_durably(partial / name, content)
    _sync_folder(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    _sync_folder(folder.parent)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint back, whole or not at all.

    Raises:
        CheckpointError: it is missing, incomplete, damaged, or of another schema version.
    """
    state = _read_state(folder)
    try:
        payload = {name: _read_checked(folder / name, state["sha256"][name]) for name in PAYLOAD_FILES}
        return Checkpoint(
            learner=LearnerState(
                policy=load_safetensors(payload[POLICY_FILE]),
                value=load_safetensors(payload[VALUE_FILE]),
                optimizer=torch.load(io.BytesIO(payload[OPTIMIZER_FILE]), map_location="cpu", weights_only=True),
            ),
            ledger=LedgerState(**state["ledger"]),
            config_digest=str(state["config_digest"]),
        )
    except (KeyError, TypeError) as error:
        raise _damaged(folder / STATE_FILE, f"a field is missing or unknown: {error}") from error


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first; half-written ones are not among them."""
    folders = (run_dir / CHECKPOINTS).glob("iteration-*")
    return sorted(folder for folder in folders if NAME.fullmatch(folder.name))


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


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {STATE_FILE}.", path=str(path)) from error
    except ValueError as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(state, dict) or state.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} does not say schema_version {SCHEMA_VERSION}, the only one this version of addiffusion reads.",
            path=str(path),
        )
    return state


def _read_checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _damaged(path, f"its checksum is not the one in {STATE_FILE}")
    return content


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint file {path} can't be used: {reason}. Resume from an older checkpoint by deleting the folder "
        f"{path.parent}.",
        path=str(path),
        reason=reason,
    )


def _torch_bytes(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
