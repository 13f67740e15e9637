"""Full-length images of the training pairs, drawn once: what the `paired` reward is relative to."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np

from addiffusion.bank.archive import Bank
from addiffusion.config import Config
from addiffusion.errors import RolloutError, RunFolderError
from addiffusion.files import make_folder, whole_file
from addiffusion.records import FailedEpisode, Prompt, Reference, Ticket, TicketId
from addiffusion.reward import reference_of
from addiffusion.rollouts import Rollouts, workers_up
from addiffusion.seeds import derive_seed
from learner.algorithm_config import OFFLINE
from learner.settings import drawn_setting

Pairs: TypeAlias = Sequence[tuple[Prompt, int]]
References: TypeAlias = dict[tuple[str, int], Reference]
"""By text and seed of a pair."""
_FEW_VISITS = 10
"""From more visits of each training pair on, a policy begins to know the pairs by heart (docs/training.md)."""


class ReferenceStore:
    """References of a run on disk. A part is written for each batch drawn; it is whole or not there.

    Parts lie in ``references/`` of the run folder; earlier versions wrote one file ``references.npz``.
    """

    def __init__(self, run: Path, pairs: Pairs) -> None:
        """The references of ``pairs`` in the folder ``run``."""
        self._folder, self._single = run / "references", run / "references.npz"
        self._pool = _digest((prompt.text, seed) for prompt, seed in pairs)

    def load(self) -> References:
        """All that are there.

        Raises:
            RunFolderError: a file can't be read, or belongs to other prompts or seeds.
        """
        files = [*filter(Path.is_file, [self._single]), *sorted(self._folder.glob("*.npz"))]
        return {key: reference for file in files for key, reference in self._read(file).items()}

    def add(self, references: Mapping[tuple[str, int], Reference]) -> None:
        """Write one part more."""
        if not references:
            return
        make_folder(self._folder)
        number = max((int(part.stem) for part in self._folder.glob("*.npz")), default=-1) + 1
        with whole_file(self._folder / f"{number:06d}.npz") as draft, draft.open("wb") as file:
            np.savez(
                file,
                scores=np.stack([reference.scores for reference in references.values()]),
                dino=np.stack([reference.dino_embedding for reference in references.values()]),
                seeds=np.array([seed for _, seed in references], np.int64),
                prompts=np.array([text for text, _ in references]),
                pool=np.array(self._pool),
            )

    def _read(self, path: Path) -> References:
        try:
            with np.load(path, allow_pickle=False) as file:
                scores, dino = file["scores"], file["dino"]
                keys = list(zip(file["prompts"].tolist(), file["seeds"].tolist(), strict=True))
                pool = str(file["pool"]) if "pool" in file else _digest(keys)  # the single file holds the whole pool
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            raise RunFolderError(
                f"references {path} can't be read ({error}): delete that file, and its images are drawn again.",
                path=str(path),
            ) from error
        if pool != self._pool:
            raise RunFolderError(
                f"references {path} belong to other prompts than this configuration's: the prompt source has changed "
                "since the run was started; start a new run.",
                path=str(path),
            )
        rows = zip(keys, scores, dino, strict=True)
        return {key: Reference(scores=row, dino_embedding=features) for key, row, features in rows}


def known_references(pairs: Pairs, bank: Bank | None) -> References:
    """References of the pairs that a trajectory bank holds."""
    found = ((prompt.text, seed, bank.find(prompt.text, seed)) for prompt, seed in pairs) if bank is not None else ()
    return {(text, seed): trajectory.reference for text, seed, trajectory in found if trajectory is not None}


def training_pairs(prompts: Sequence[Prompt], *, seed: int) -> list[tuple[Prompt, int]]:
    """Each training prompt with the seed of its image."""
    return [(prompt, derive_seed(seed, "train", prompt.prompt_id)) for prompt in prompts]


def visits_note(config: Config, pair_count: int) -> str | None:
    """What to know before a run that visits each of its training pairs many times; None before any other."""
    episodes = config.ppo.iterations * config.ppo.batch_size
    visits = episodes / pair_count
    if config.ppo.algorithm in OFFLINE or visits <= _FEW_VISITS:
        return None
    return (
        f"note: each of {pair_count} training pairs will be visited {visits:.0f} times, and from about {_FEW_VISITS} "
        f"on it is learned by heart; prompts.train_count={math.ceil(episodes / _FEW_VISITS)} or more avoids that"
    )


def draw_references(rollouts: Rollouts, pairs: Pairs, config: Config) -> Iterator[References]:
    """Roll every pair out to full length; yields what is finished, an image for each slot that is up at a time.

    A failed pair is drawn again after the others.

    Raises:
        RolloutError: a pair has failed more than ``rollout.max_reissues`` times; without its reference it can't be
            trained on.
    """
    waiting = deque(
        Ticket.full_length(
            TicketId(number),
            prompt,
            seed=seed,
            c_nfe=config.reward.c_nfe,
            keep_image=False,
            setting=drawn_setting(config, seed),
        )
        for number, (prompt, seed) in enumerate(pairs)
    )
    failures: Counter[TicketId] = Counter()
    while waiting:
        count = min(len(waiting), config.rollout.slots * workers_up(rollouts))
        collected = rollouts.collect([waiting.popleft() for _ in range(count)])
        yield {(one.ticket.prompt.text, one.ticket.seed): reference_of(one) for one in collected.episodes}
        for failed in collected.failed:
            failures[failed.ticket.ticket_id] += 1
            if failed.final or failures[failed.ticket.ticket_id] > config.rollout.max_reissues:
                raise _undrawable(failed, failures[failed.ticket.ticket_id])
            waiting.append(failed.ticket)


def _undrawable(failed: FailedEpisode, count: int) -> RolloutError:
    return RolloutError(
        f"the full-length image of training prompt {failed.ticket.prompt.text!r} could not be drawn in {count} "
        f"attempt{'s' * (count > 1)}: {failed.reason}",
        ticket_id=failed.ticket.ticket_id,
    )


def _digest(keys: Iterator[tuple[str, int]] | Sequence[tuple[str, int]]) -> str:
    return hashlib.sha256(json.dumps([*keys]).encode()).hexdigest()
