"""Film strips on disk: every decision's image and mask of a few episodes, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import ArchiveError
from addiffusion.files import make_folder, whole_file
from addiffusion.records import Episode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Film:
    """One episode, as far as a film strip shows it."""

    prompt: str
    tier: int
    index: int
    """Of its case."""
    nfe: int
    actions: NDArray[np.int64]
    """(d,)."""
    steps: NDArray[np.int64]
    """(d,)."""
    scores: NDArray[np.float32]
    """(d + 1, k) in the order of SCORE_NAMES; the last row is the returned image's."""
    images: NDArray[np.uint8]
    """(d + 1, H, W, 3)."""
    masks: NDArray[np.float32]
    """(d, h, w); all NaN where nothing was refined."""


class FilmStore:
    """One compressed file per film under ``films/<contestant>/``."""

    def __init__(self, path: Path) -> None:
        self._path = path / "films"

    def keep(self, contestant: str, episodes: Sequence[Episode]) -> None:
        """Write those episodes that kept their frames."""
        for episode in episodes:
            if episode.frames is not None:
                self.write(contestant, film_of(episode))

    def write(self, contestant: str, film: Film) -> None:
        """Write one film, whole or not at all."""
        folder = self._path / contestant
        make_folder(folder)
        arrays: dict[str, Any] = {name: np.asarray(getattr(film, name)) for name in Film.__slots__}
        with whole_file(folder / f"{film.index:05d}.npz") as draft, draft.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def read(self, contestant: str) -> list[Film]:
        """Films in the order of cases.

        Raises:
            ArchiveError: a file can't be read.
        """
        return [_read(path) for path in sorted((self._path / contestant).glob("[0-9]*.npz"))]


def film_of(episode: Episode) -> Film:
    """The film of an episode that kept its frames."""
    frames = episode.frames
    assert frames is not None
    shape = next((mask.shape for mask in frames.masks if mask is not None), (1, 1))
    blank = np.full(shape, np.nan, np.float32)
    masks = [blank if mask is None else mask for mask in frames.masks]
    return Film(
        prompt=episode.ticket.prompt.text,
        tier=episode.ticket.prompt.tier,
        index=episode.ticket.ticket_id,
        nfe=episode.nfe,
        actions=episode.actions,
        steps=episode.steps,
        scores=episode.scores,
        images=frames.images,
        masks=np.stack(masks) if masks else np.zeros((0, *shape), np.float32),
    )


def _read(path: Path) -> Film:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Film(
                prompt=str(file["prompt"]),
                tier=int(file["tier"]),
                index=int(file["index"]),
                nfe=int(file["nfe"]),
                **{name: file[name] for name in ("actions", "steps", "scores", "images", "masks")},
            )
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise ArchiveError(f"The film {path} can't be read ({error}); delete it.", path=str(path)) from error
