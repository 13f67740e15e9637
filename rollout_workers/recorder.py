"""Episodes to Parquet and back.

An episode of ``d`` decisions is ``d + 1`` rows: one per decision, then one for the returned image, which alone carries
what belongs to the whole episode. Frames are not recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from addiffusion.actions import FIRST_ACTIONS, Action
from addiffusion.errors import ArchiveError
from addiffusion.files import make_folder, whole_file
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode, Prompt, Reference, Ticket
from addiffusion.setting import Setting

FORMAT_KEY = b"addiffusion.episodes"
"""Key of the format version in a part file's metadata."""
FORMAT_VERSION = b"3"

_FLOATS = pa.list_(pa.float32())
_DECISION_FIELDS = (
    pa.field("phi", _FLOATS),
    pa.field("action", pa.int8()),
    pa.field("log_prob", pa.float32()),
    pa.field("logits", _FLOATS),
    pa.field("step", pa.int32()),
    pa.field("nfe_spent", pa.int32()),
    *(pa.field(f"term_{name}", pa.float32()) for name in TERM_NAMES),
)
_EPISODE_FIELDS = (
    pa.field("phi_width", pa.int32()),
    pa.field("prompt_id", pa.int64()),
    pa.field("prompt", pa.string()),
    pa.field("tier", pa.int8()),
    pa.field("seed", pa.int64()),
    pa.field("action_seed", pa.int64()),
    pa.field("c_nfe", pa.float64()),
    pa.field("forced", pa.int8()),
    pa.field("explore", pa.bool_()),
    pa.field("reference_scores", _FLOATS),
    pa.field("reference_dino", _FLOATS),
    pa.field("final_dino", _FLOATS),
    pa.field("image", pa.binary()),
    pa.field("image_height", pa.int32()),
    pa.field("image_width", pa.int32()),
    pa.field("nfe", pa.int32()),
    pa.field("network_evals", pa.int32()),
    pa.field("seconds", pa.float64()),
)
_FIELDS = (
    pa.field("ticket_id", pa.int64(), nullable=False),
    pa.field("row", pa.int32(), nullable=False),
    pa.field("weight_version", pa.int64(), nullable=False),
    *(pa.field(f"score_{name}", pa.float32()) for name in SCORE_NAMES),
    *_DECISION_FIELDS,
    *_EPISODE_FIELDS,
)
_ADDED_FIELDS = (pa.field("cost", pa.float64()), pa.field("setting", pa.string()))
SCHEMA = pa.schema([*_FIELDS, *_ADDED_FIELDS], metadata={FORMAT_KEY: FORMAT_VERSION})
"""Columns of a part file. Decision columns are null in an episode's last row, episode columns in all others."""
_SCHEMA_2 = pa.schema([*_FIELDS])
"""Columns from when every pass cost the same and a run had one setting."""

_Row: TypeAlias = dict[str, Any]


class EpisodeRecorder:
    """Appends episodes to a folder, one part file per call.

    Args:
        folder: created when missing.
        name: first part of every file name, e.g. ``worker-3``. Recorders that share a folder need names of their own.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        self._folder = folder
        self._name = name
        make_folder(folder)

    def append(self, episodes: Sequence[Episode]) -> Path | None:
        """Write one part file, whole or not at all; returns its path, or None when there is nothing to write.

        Raises:
            OutputError: the disk is full, or can't be written.
        """
        if not episodes:
            return None
        table = pa.Table.from_pylist([row for episode in episodes for row in _to_rows(episode)], schema=SCHEMA)
        path = self._folder / f"{self._name}-{self._next_number():06d}.parquet"
        with whole_file(path) as draft:
            pq.write_table(table, draft, compression="zstd")
        return path

    def rewind(self, part_count: int) -> None:
        """Forget every part after the first ``part_count``: whoever goes on from there writes them again."""
        for number, path in self._parts().items():
            if number >= part_count:
                path.unlink()

    def _next_number(self) -> int:
        return max(self._parts(), default=-1) + 1

    def _parts(self) -> dict[int, Path]:
        prefix = f"{self._name}-"
        parts = {path.stem.removeprefix(prefix): path for path in self._folder.glob(f"{prefix}*.parquet")}
        return {int(number): path for number, path in parts.items() if number.isdigit()}


def read_episodes(folder: Path) -> Iterator[Episode]:
    """Every recorded episode of a folder, part by part in the order of file names.

    Raises:
        ArchiveError: a Parquet file there can't be read or was not written by a recorder of this version.
    """
    for path in sorted(folder.glob("*.parquet")):
        yield from read_part(path)


def read_part(path: Path) -> tuple[Episode, ...]:
    """The episodes of one part file, as written but for frames and the wish for them.

    Raises:
        ArchiveError: the file can't be read or was not written by a recorder of this version.
    """
    return tuple(_from_rows(rows) for rows in _episodes(_read_rows(path)))


def _read_rows(path: Path) -> list[_Row]:
    try:
        found = pq.read_schema(path)
        version = (found.metadata or {}).get(FORMAT_KEY)
        known = {FORMAT_VERSION: SCHEMA, b"2": _SCHEMA_2}.get(version or b"")
        if known is not None and found.equals(known):
            return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(
            f"{path} can't be read as a Parquet file of episodes ({error}); restore or remove it.", path=str(path)
        ) from error
    raise ArchiveError(
        f"{path} is not a file of recorded episodes of format version {FORMAT_VERSION.decode()}; "
        "remove it from the folder, or read it with the version that wrote it.",
        path=str(path),
        version=version.decode() if version else None,
    )


def _episodes(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Row numbers restart with each episode."""
    for _, group in groupby(enumerate(rows), key=lambda item: item[0] - item[1]["row"]):
        yield [row for _, row in group]


def _to_rows(episode: Episode) -> Iterator[_Row]:
    for index in range(len(episode.actions)):
        yield _common(episode, index) | _decision(episode, index)
    yield _common(episode, len(episode.actions)) | _whole(episode)


def _common(episode: Episode, row: int) -> _Row:
    scores = zip(SCORE_NAMES, episode.scores[row].tolist(), strict=True)
    version = [*episode.weight_versions.tolist(), episode.weight_version][row]
    common = {"ticket_id": episode.ticket.ticket_id, "row": row, "weight_version": version}
    return common | {f"score_{name}": value for name, value in scores}


def _decision(episode: Episode, index: int) -> _Row:
    terms = zip(TERM_NAMES, episode.terms[index].tolist(), strict=True)
    return {
        "phi": episode.phi[index],
        "action": int(episode.actions[index]),
        "log_prob": float(episode.log_prob[index]),
        "logits": episode.logits[index],
        "step": int(episode.steps[index]),
        "nfe_spent": int(episode.nfe_spent[index]),
    } | {f"term_{name}": value for name, value in terms}


def _whole(episode: Episode) -> _Row:
    return _ticket_columns(episode.ticket) | {
        "phi_width": episode.phi.shape[1],
        "final_dino": episode.final_dino,
        "image": episode.image.tobytes(),
        "image_height": episode.image.shape[0],
        "image_width": episode.image.shape[1],
        "nfe": episode.nfe,
        "network_evals": episode.network_evals,
        "seconds": episode.seconds,
        "cost": episode.cost,
    }


def _ticket_columns(ticket: Ticket) -> _Row:
    return {
        "prompt_id": ticket.prompt.prompt_id,
        "prompt": ticket.prompt.text,
        "tier": ticket.prompt.tier,
        "seed": ticket.seed,
        "action_seed": ticket.action_seed,
        "c_nfe": ticket.c_nfe,
        "forced": None if ticket.forced is None else int(ticket.forced),
        "explore": ticket.explore,
        "setting": None if ticket.setting is None else json.dumps(asdict(ticket.setting)),
        "reference_scores": None if ticket.reference is None else ticket.reference.scores,
        "reference_dino": None if ticket.reference is None else ticket.reference.dino_embedding,
    }


def _from_rows(rows: Sequence[_Row]) -> Episode:
    *decisions, whole = rows
    versions = np.array([row["weight_version"] for row in decisions], np.int64)
    return Episode(
        ticket=_ticket(whole),
        phi=_matrix(decisions, "phi", whole["phi_width"]),
        actions=np.array([row["action"] for row in decisions], np.int64),
        log_prob=np.array([row["log_prob"] for row in decisions], np.float32),
        logits=_matrix(decisions, "logits", len(decisions[0]["logits"] if decisions else FIRST_ACTIONS)),
        steps=np.array([row["step"] for row in decisions], np.int64),
        nfe_spent=np.array([row["nfe_spent"] for row in decisions], np.int64),
        scores=_columns(rows, "score", SCORE_NAMES),
        terms=_columns(decisions, "term", TERM_NAMES),
        final_dino=np.array(whole["final_dino"], np.float32),
        image=np.frombuffer(whole["image"], np.uint8).reshape(whole["image_height"], whole["image_width"], 3).copy(),
        nfe=whole["nfe"],
        network_evals=whole["network_evals"],
        weight_version=whole["weight_version"],
        carried_versions=versions if len(set(versions.tolist())) > 1 else None,
        seconds=whole["seconds"],
        cost=whole.get("cost", math.nan),
    )


def _ticket(whole: Mapping[str, Any]) -> Ticket:
    scores, dino = whole["reference_scores"], whole["reference_dino"]
    return Ticket(
        ticket_id=whole["ticket_id"],
        prompt=Prompt(prompt_id=whole["prompt_id"], text=whole["prompt"], tier=whole["tier"]),
        seed=whole["seed"],
        action_seed=whole["action_seed"],
        c_nfe=whole["c_nfe"],
        forced=None if whole["forced"] is None else Action(whole["forced"]),
        explore=whole["explore"],
        setting=Setting(**json.loads(whole["setting"])) if whole.get("setting") else None,
        reference=None
        if scores is None
        else Reference(scores=np.array(scores, np.float32), dino_embedding=np.array(dino, np.float32)),
    )


def _matrix(rows: Sequence[_Row], column: str, width: int) -> NDArray[np.float32]:
    return np.array([row[column] for row in rows], np.float32).reshape(len(rows), width)


def _columns(rows: Sequence[_Row], prefix: str, names: Sequence[str]) -> NDArray[np.float32]:
    values = [[row[f"{prefix}_{name}"] for name in names] for row in rows]
    return np.array(values, np.float32).reshape(len(rows), len(names))
