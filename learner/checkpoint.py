"""Checkpoints: written beside, then renamed, so that a folder is either whole or not there, whenever it is killed.

A checkpoint folder holds ``policy.safetensors`` and ``value.safetensors`` (network states), ``optimizer.pt``
(loadable with ``weights_only=True``) and ``state.json`` (everything else, with a checksum of each other file).
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from addiffusion.checkpoint_files import (
    BEST,
    CHECKPOINTS,
    POLICY_FILE,
    SCHEMA_VERSION,
    STATE_FILE,
    damaged,
    followed,
    list_checkpoints,
    read_checked,
    read_state,
)
from addiffusion.config import Config
from addiffusion.config.sampling import IMAGE_KEYS
from addiffusion.errors import CheckpointError, OutputError
from addiffusion.files import put_back, remove_folder, whole_file, whole_folder, write_text, writing
from learner.state import LearnerState
from learner.tickets import LedgerState

VALUE_FILE = "value.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
PAYLOAD_FILES = (POLICY_FILE, VALUE_FILE, OPTIMIZER_FILE)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
LEARNED_FROM: Any = {
    "run": {"seed"},
    "backbone": IMAGE_KEYS | {"guidance_scale_range"},
    "scorers": {"kind"},
    **dict.fromkeys(
        ("sampler", "refine", "observation", "reward", "policy", "warm_start", "ppo", "prompts", "curriculum"), True
    ),
}
"""Keys of the configuration a learner's state depends on; where and how a run is spread out is not among them."""
_ADDED_LATER = (
    ("backbone", "guidance_scale_range"),
    ("sampler", "num_steps_range"),
    ("sampler", "solvers"),
    ("sampler", "max_cost"),
    ("sampler", "max_cost_share"),
    ("ppo", "price_scale"),
    ("sampler", "leap_steps"),
    ("sampler", "max_redraws"),
    ("reward", "bound"),
)
"""Keys that not every run has known; their default is what it did without them."""
_DEFAULTS = Config()
_FORM = "2:"
"""What digests of ``LEARNED_FROM`` begin with."""
_LEARNED_FROM_1: Any = LEARNED_FROM | {"backbone": {"kind", "path", "guidance_scale"}}
"""Keys of the digests before, which begin with nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All a run needs to go on as if it had never stopped. Random streams are derived, so none is stored."""

    learner: LearnerState
    ledger: LedgerState
    config_digest: str
    """Of the configuration the state belongs to; see ``config_digest``."""
    score: float | None = None
    """How good the policy was in the iterations before; more is better."""

    @property
    def iteration(self) -> int:
        """The next iteration, which is also the version of the weights."""
        return self.ledger.iteration


def config_digest(config: Config) -> str:
    """A digest of ``LEARNED_FROM``: states with the same digest can replace each other."""
    return _FORM + _digest(config, LEARNED_FROM)


def is_of(checkpoint: Checkpoint, config: Config) -> bool:
    """Whether a run of ``config`` can go on from ``checkpoint``; one of an earlier version says less of its model."""
    known = checkpoint.config_digest
    return known == (config_digest(config) if known.startswith(_FORM) else _digest(config, _LEARNED_FROM_1))


def _digest(config: Config, keys: Any) -> str:
    tree = config.model_dump(mode="json", include=keys) | {"observation": config.observation.identity()}
    for section, name in _ADDED_LATER:
        default = getattr(getattr(_DEFAULTS, section), name)
        if tree[section].get(name, default) == default:  # as in runs from before there was such a key
            tree[section].pop(name, None)
    text = json.dumps(tree, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint into ``run_dir`` and delete all but the newest, ``keep`` before it, and the best by score.

    Returns:
        Its folder, ``run_dir/checkpoints/iteration-<n>``.
    """
    folder = run_dir / CHECKPOINTS / f"iteration-{checkpoint.iteration:06d}"
    put_back(folder.parent)
    write_checkpoint(folder, checkpoint)
    best = _best(list_checkpoints(run_dir))
    if best is not None:
        _point_to(run_dir / CHECKPOINTS / BEST, best)
    for outdated in list_checkpoints(run_dir)[: -(keep + 1)]:
        if outdated != best:
            remove_folder(outdated)
    return folder


def _best(folders: Sequence[Path]) -> Path | None:
    """The folder of the highest score, the newer of equals; None when none has a score."""
    scores = [(score, folder) for folder in folders if (score := read_state(folder).get("score")) is not None]
    return max(scores)[1] if scores else None


def _point_to(link: Path, folder: Path) -> None:
    """Make ``link`` a relative link to ``folder`` beside it, in one step; a file with its name where links can't be."""
    try:
        with whole_file(link) as draft:
            draft.symlink_to(folder.name)
    except OutputError:  # Google Drive, SMB, exFAT
        write_text(link, folder.name + "\n")


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder``, whole or not at all; a folder of that name is replaced, unless it holds the same.

    Raises:
        CheckpointError: the disk is full, or can't be written; what was there stays.
    """
    contents = _contents(checkpoint)
    if _holds(folder, contents):
        return
    try:
        with whole_folder(folder) as draft:
            for name, content in contents.items():
                _write_durably(draft / name, content)
            _sync_folder(draft)
        with writing(folder):
            _sync_folder(folder.parent)
    except OutputError as error:
        raise CheckpointError(
            f"The checkpoint {folder} can't be written ({_cause(error)}): make room there, or lower checkpoint.keep, "
            f"{_what_is_left(folder)}.",
            path=str(folder),
        ) from error


def _holds(folder: Path, contents: Mapping[str, bytes]) -> bool:
    """Whether ``folder`` is this very checkpoint, byte by byte."""
    return all((folder / name).is_file() and (folder / name).read_bytes() == it for name, it in contents.items())


def _cause(error: OutputError) -> str:
    number = error.facts.get("errno")
    return os.strerror(number) if number else error.message


def _what_is_left(folder: Path) -> str:
    """What to do once a checkpoint could not be written."""
    earlier = list_checkpoints(folder.parent.parent)
    if earlier:
        return f"and go on with {earlier[-1].name}, which is whole"
    return f"and go on with resume={folder.parent.parent}, which has no checkpoint yet"


def _contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    payload = {
        POLICY_FILE: save_safetensors(checkpoint.learner.policy),
        VALUE_FILE: save_safetensors(checkpoint.learner.value),
        OPTIMIZER_FILE: _torch_bytes(checkpoint.learner.optimizer),
    }
    state = {
        "schema_version": SCHEMA_VERSION,
        "weight_version": checkpoint.iteration,
        "config_digest": checkpoint.config_digest,
        "score": checkpoint.score,
        "ledger": asdict(checkpoint.ledger),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in payload.items()},
    }
    return payload | {STATE_FILE: json.dumps(state, indent=2).encode()}


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint back, whole or not at all.

    Raises:
        CheckpointError: it is missing, incomplete, damaged, or of another schema version.
    """
    folder = followed(folder)
    state = read_state(folder)
    try:
        payload = {name: read_checked(folder / name, state["sha256"][name]) for name in PAYLOAD_FILES}
        return Checkpoint(
            learner=LearnerState(
                policy=load_safetensors(payload[POLICY_FILE]),
                value=load_safetensors(payload[VALUE_FILE]),
                optimizer=torch.load(io.BytesIO(payload[OPTIMIZER_FILE]), map_location="cpu", weights_only=True),
            ),
            ledger=LedgerState(**state["ledger"]),
            config_digest=str(state["config_digest"]),
            score=state.get("score"),
        )
    except (KeyError, TypeError) as error:
        raise damaged(folder / STATE_FILE, f"a field is missing or unknown: {error}") from error


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
    """Where folders can be: network and user-space file systems often refuse."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
