"""Which study a folder holds: kept beside its trials, so that another one is refused instead of half mixed in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from addiffusion.config import Config
from addiffusion.configuration.shown import shown
from addiffusion.errors import RunFolderError
from addiffusion.files import write_text
from launch.tuning.study import Study

STUDY_FILE = "study.json"
_MOVABLE = ("config.cluster.", "config.rollout.")
"""Say where trials work, not what they compute."""


def study_record(study: Study, config: Config, bank: Path | None) -> dict[str, Any]:
    """All that the trials of a study have in common, as JSON."""
    return {
        "study": study.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "bank": None if bank is None else str(bank.absolute()),
    }


def keep_study(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a new study into ``folder``; compare it with the one that is there.

    Raises:
        RunFolderError: the folder holds another study, or can't be written.
    """
    file = folder / STUDY_FILE
    try:
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if kept is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise RunFolderError(f"The folder {folder} can't hold a study: {error.strerror}.", path=str(folder)) from error
    except ValueError as error:
        raise RunFolderError(f"{file} is damaged ({error}): give the study a new folder by --out.") from error
    if kept is not None:
        _refuse_another(folder, _leaves(kept), _leaves(record))


def _refuse_another(folder: Path, kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for key in sorted(kept.keys() | given.keys()):
        before, now = kept.get(key), given.get(key)
        if before != now and not key.startswith(_MOVABLE):
            name = key.removeprefix("study.").removeprefix("config.")
            raise RunFolderError(
                f"The study in {folder} has {name}={shown(before)}, this one {shown(now)}: a study is finished as it "
                f"was begun. Set {name} back, or give the new study a folder of its own by --out.",
                key=name,
            )


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Values by dotted path; a list is one value."""
    return dict(_walk(tree, path))


def _walk(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, value in tree.items():
        yield from _walk(value, f"{path}.{key}" if path else str(key))
