"""Trajectories to Parquet and back: one row per decision, then one for the full-length image.

A shard holds whole trajectories and appears whole or not at all. ``end_*`` columns are null where stop was not tried.
Where each image has a setting of its own, it is in ``setting_*`` and ``cost_per_nfe``, null where the bank's own holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from addiffusion.bank.plan import SCHEMA_VERSION, BankPlan, check_fits, read_plan
from addiffusion.bank.trajectory import Trajectory
from addiffusion.config import Config
from addiffusion.errors import ArchiveError, ConfigError
from addiffusion.files import whole_file
from addiffusion.records import SCORE_NAMES, Prompt
from addiffusion.setting import Setting

FORMAT_KEY = b"addiffusion.bank"
_WHOLE = ("prompt_id", "tier", "seed", "evals_per_nfe")
_TYPES = {
    "solver": pa.string(),
    "num_steps": pa.int64(),
    "spacing": pa.string(),
    "finish_steps": pa.int64(),
    "guidance_scale": pa.float64(),
    "negative_prompt": pa.string(),
    "max_cost": pa.float64(),
}
"""Columns of a setting, by its field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """All trajectories of a bank, in the order they were planned."""

    path: Path
    plan: BankPlan
    trajectories: tuple[Trajectory, ...]
    _places: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])

    def find(self, prompt: str, seed: int) -> Trajectory | None:
        """The trajectory of a prompt's text and a seed; None when the bank does not have it."""
        place = self._places.get((prompt, seed))
        return None if place is None else self.trajectories[place]

    @property
    def complete(self) -> bool:
        """Whether everything that was planned is there."""
        return len(self.trajectories) == self.plan.count

    def require_one_setting(self, use: str) -> None:
        """Refuse images that have a setting each.

        Args:
            use: what needs one for all, as the beginning of a sentence.

        Raises:
            ConfigError: they have.
        """
        if any(one.setting is not None for one in self.trajectories):
            raise ConfigError(
                f"{use} needs images of one setting, but those of the trajectory bank {self.path} have a setting each: "
                "build another with sampler.num_steps_range=null sampler.solvers=null "
                "backbone.guidance_scale_range=null, and set them so here.",
                path=str(self.path),
            )


def open_bank(path: Path, config: Config | None = None, *, advance: Callable[[], object] = lambda: None) -> Bank:
    """Read the bank in folder ``path``; with ``config``, refuse one that does not fit it.

    Args:
        path: folder of the bank.
        config: of whoever uses it.
        advance: called once for each of its ``shards``, when that is read.

    Raises:
        ArchiveError: there is none, a shard can't be read, it is empty, or it is of another configuration.
    """
    plan = read_plan(path)
    if config is not None:
        check_fits(plan, config, path)
    trajectories: list[Trajectory] = []
    for shard in shards(path):
        trajectories += read_shard(shard, plan)
        advance()
    if not trajectories:
        raise ArchiveError(f"The trajectory bank {path} is empty: finish it with `addiffusion bank build {path}`.")
    places = {(one.prompt.text, one.seed): place for place, one in enumerate(trajectories)}
    return Bank(path=path, plan=plan, trajectories=tuple(trajectories), _places=places)


def shards(folder: Path) -> list[Path]:
    """The whole shards of a bank, in order."""
    return sorted(folder.glob("shard-*.parquet"))


def shard_path(folder: Path, number: int) -> Path:
    """Where shard ``number`` lies."""
    return folder / f"shard-{number:06d}.parquet"


def write_shard(path: Path, trajectories: Sequence[Trajectory], plan: BankPlan) -> None:
    """Write one shard, whole or not at all."""
    tables = [_table(one, plan) for one in trajectories]
    metadata = {FORMAT_KEY: str(SCHEMA_VERSION).encode()}
    with whole_file(path) as draft:
        pq.write_table(pa.concat_tables(tables).replace_schema_metadata(metadata), draft, compression="zstd")


def read_shard(path: Path, plan: BankPlan) -> list[Trajectory]:
    """The trajectories of one shard.

    Raises:
        ArchiveError: the file can't be read, or something else wrote it.
    """
    try:
        table = pq.read_table(path).combine_chunks()
        if (table.schema.metadata or {}).get(FORMAT_KEY) != str(SCHEMA_VERSION).encode():
            raise ArchiveError(
                f"{path} is no shard of a trajectory bank of schema version {SCHEMA_VERSION}: remove it and build on.",
                path=str(path),
            )
        starts = np.flatnonzero(_numbers(table, "row") == 0)
        lengths = np.diff(np.append(starts, len(table)))
        return [_trajectory(table.slice(a, n), plan) for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    except (OSError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        raise ArchiveError(
            f"{path} can't be read as a shard of a trajectory bank ({error}): remove it and build the bank on.",
            path=str(path),
        ) from error


def _table(one: Trajectory, plan: BankPlan) -> pa.Table:
    count = len(one.steps)
    tried = np.zeros(count + 1, np.bool_)
    tried[one.end_rows] = True
    whole = {name: getattr(one.prompt if name in {"prompt_id", "tier"} else one, name) for name in _WHOLE}
    columns: dict[str, Any] = {
        "row": np.arange(count + 1),
        "prompt": pa.array([one.prompt.text] * (count + 1)).dictionary_encode(),
        **{name: np.full(count + 1, value, np.int64) for name, value in whole.items()},
        "step": pa.array(np.append(one.steps, 0), mask=np.arange(count + 1) == count),
        "nfe": np.append(one.nfe, one.end_nfe[-1]),
        "phi": _vectors(one.phi, np.arange(count + 1) < count),
        "dino": _vectors(one.dino),
        **_scalars("score", SCORE_NAMES, one.scores),
        **_scalars("metric", plan.metrics, one.metrics),
        "end_nfe": _spread(one.end_nfe, tried),
        "end_dino": _vectors(one.end_dino, tried),
        **_scalars("end_score", SCORE_NAMES, one.end_scores, tried),
        **_scalars("end_metric", plan.metrics, one.end_metrics, tried),
        **_setting_columns(one, count + 1),
    }
    return pa.table(columns)


def _setting_columns(one: Trajectory, rows: int) -> dict[str, pa.Array]:
    """The setting and what it makes of the cost of a pass; nothing where all images have the bank's own."""
    if one.setting is None:
        return {}
    values = {f"setting_{name}": pa.array([getattr(one.setting, name)] * rows, kind) for name, kind in _TYPES.items()}
    return values | {"cost_per_nfe": pa.array([one.cost_per_nfe] * rows)}


def _setting_in(table: pa.Table) -> dict[str, Any]:
    if "cost_per_nfe" not in table.column_names:
        return {}
    setting = Setting(**{name: table[f"setting_{name}"][0].as_py() for name in _TYPES})
    return {"setting": setting, "cost_per_nfe": table["cost_per_nfe"][0].as_py()}


def _trajectory(table: pa.Table, plan: BankPlan) -> Trajectory:
    count = len(table) - 1
    tried = np.flatnonzero(table["end_nfe"].is_valid().to_numpy())
    ends = table.take(pa.array(tried))
    first: dict[str, Any] = {name: table[name][0].as_py() for name in ("prompt", *_WHOLE)}
    return Trajectory(
        prompt=Prompt(prompt_id=first["prompt_id"], text=first["prompt"], tier=first["tier"]),
        seed=first["seed"],
        evals_per_nfe=first["evals_per_nfe"],
        steps=_numbers(table.slice(0, count), "step"),
        nfe=_numbers(table.slice(0, count), "nfe"),
        phi=_matrix(table.slice(0, count), "phi"),
        scores=_columns(table, "score", SCORE_NAMES),
        metrics=_columns(table, "metric", plan.metrics),
        dino=_matrix(table, "dino"),
        end_rows=tried,
        end_nfe=_numbers(ends, "end_nfe"),
        end_scores=_columns(ends, "end_score", SCORE_NAMES),
        end_metrics=_columns(ends, "end_metric", plan.metrics),
        end_dino=_matrix(ends, "end_dino"),
        **_setting_in(table),
    )


def _spread(values: NDArray[Any], where: NDArray[np.bool_]) -> pa.Array:
    """``values`` in the rows of ``where``, null elsewhere."""
    full = np.zeros(len(where), values.dtype)
    full[where] = values
    return pa.array(full, mask=~where)


def _scalars(
    prefix: str, names: Sequence[str], values: NDArray[np.float32], where: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    rows = np.ones(len(values), np.bool_) if where is None else where
    return {f"{prefix}_{name}": _spread(values[:, column], rows) for column, name in enumerate(names)}


def _vectors(values: NDArray[np.float32], where: NDArray[np.bool_] | None = None) -> pa.Array:
    """One list per row; null outside ``where``."""
    rows = np.ones(len(values), np.bool_) if where is None else where
    lengths = np.where(rows, values.shape[1], 0)
    offsets = pa.array(np.append(0, lengths.cumsum()).astype(np.int32), mask=np.append(~rows, False))
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    return table[name].to_numpy().astype(np.int64)


def _matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), -1).astype(np.float32)


def _columns(table: pa.Table, prefix: str, names: Sequence[str]) -> NDArray[np.float32]:
    values = [table[f"{prefix}_{name}"].to_numpy() for name in names]
    return np.stack(values, axis=1).astype(np.float32) if names else np.zeros((len(table), 0), np.float32)
