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
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from addiffusion.config import Config
from addiffusion.config.sampling import IMAGE_KEYS
from addiffusion.errors import CheckpointError, OutputError
from addiffusion.files import put_aside, put_back, remove_folder, whole_file, whole_folder, write_text, writing
from learner.state import LearnerState
from learner.tickets import LedgerState

SCHEMA_VERSION = 1
CHECKPOINTS = "checkpoints"
"""Folder of a run that holds its checkpoints."""
BEST = "best"
"""Link in that folder to the checkpoint of the highest score; where there are no links, a file with its name."""
STATE_FILE = "state.json"
POLICY_FILE = "policy.safetensors"
VALUE_FILE = "value.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
PAYLOAD_FILES = (POLICY_FILE, VALUE_FILE, OPTIMIZER_FILE)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
NAME = re.compile(r"iteration-\d{6}")
LEARNED_FROM: Any = {
    "run": {"seed"},
    "backbone": set(IMAGE_KEYS),
    "scorers": {"kind"},
    **dict.fromkeys(
        ("sampler", "refine", "observation", "reward", "policy", "warm_start", "ppo", "prompts", "curriculum"), True
    ),
}
"""Keys of the configuration a learner's state depends on; where and how a run is spread out is not among them."""
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
    text = json.dumps(config.model_dump(mode="json", include=keys), sort_keys=True)
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
    scores = [(score, folder) for folder in folders if (score := _read_state(folder).get("score")) is not None]
    return max(scores)[1] if scores else None


def _point_to(link: Path, folder: Path) -> None:
    """Make ``link`` a relative link to ``folder`` beside it, in one step; a file with its name where links can't be."""
    try:
        with whole_file(link) as draft:
            draft.symlink_to(folder.name)
    except OutputError:  # Google Drive, SMB, exFAT
        write_text(link, folder.name + "\n")


def followed(path: Path) -> Path:
    """The checkpoint folder that ``path`` means: itself, or the one that a file called ``best`` names."""
    if path.name != BEST or not path.is_file():
        return path
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    return path.with_name(name) if NAME.fullmatch(name) else path


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
            score=state.get("score"),
        )
    except (KeyError, TypeError) as error:
        raise _damaged(folder / STATE_FILE, f"a field is missing or unknown: {error}") from error


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
    """Where folders can be: network and user-space file systems often refuse."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
