"""Full-length images of the training pairs, drawn once: what the `paired` reward is relative to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from addiffusion.actions import Action
from addiffusion.bank.archive import Bank
from addiffusion.config import Config
from addiffusion.errors import RolloutError, RunFolderError
from addiffusion.records import Prompt, Reference, Ticket
from addiffusion.reward import reference_of
from addiffusion.rollouts import Rollouts
from addiffusion.seeds import derive_seed

Pairs = Sequence[tuple[Prompt, int]]


def known_references(pairs: Pairs, bank: Bank | None) -> dict[tuple[str, int], Reference]:
    """References of the pairs that a trajectory bank holds, by text and seed."""
    found = ((prompt.text, seed, bank.find(prompt.text, seed)) for prompt, seed in pairs) if bank is not None else ()
    return {(text, seed): trajectory.reference for text, seed, trajectory in found if trajectory is not None}


def training_pairs(prompts: Sequence[Prompt], *, seed: int) -> list[tuple[Prompt, int]]:
    """Each training prompt with the seed of its image."""
    return [(prompt, derive_seed(seed, "train", prompt.prompt_id)) for prompt in prompts]


def draw_references(
    rollouts: Rollouts, pairs: Pairs, *, config: Config, advance: Callable[[int], None], stop: Callable[[], bool]
) -> list[Reference] | None:
    """Roll every pair out to full length; None when ``stop`` said so on the way.

    Raises:
        RolloutError: an image could not be finished; without its reference the pair can't be trained on.
    """
    chunk = config.rollout.workers * config.rollout.slots
    references: list[Reference] = []
    for start in range(0, len(pairs), chunk):
        if stop():
            return None
        tickets = [_ticket(start + row, pair, config) for row, pair in enumerate(pairs[start : start + chunk])]
        collected = rollouts.collect(tickets)
        if collected.failed:
            failed = collected.failed[0]
            raise RolloutError(
                f"the full-length image of training prompt {failed.ticket.prompt.text!r} could not be drawn: "
                f"{failed.reason}",
                ticket_id=failed.ticket.ticket_id,
            )
        references += [reference_of(episode) for episode in collected.episodes]
        advance(len(tickets))
    return references


def save_references(path: Path, pairs: Pairs, references: Sequence[Reference]) -> None:
    """Write the references beside the run, with the pairs they belong to."""
    partial = path.with_name("partial-" + path.name)
    np.savez(
        partial,
        scores=np.stack([reference.scores for reference in references]),
        dino=np.stack([reference.dino_embedding for reference in references]),
        seeds=np.array([seed for _, seed in pairs], np.int64),
        prompts=np.array([prompt.text for prompt, _ in pairs]),
    )
    partial.replace(path)


def load_references(path: Path, pairs: Pairs) -> list[Reference]:
    """Read the references of ``pairs`` back.

    Raises:
        RunFolderError: the file can't be read, or belongs to other prompts or seeds.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            scores, dino, seeds, prompts = file["scores"], file["dino"], file["seeds"], file["prompts"]
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise RunFolderError(f"references {path} can't be read ({error}): start a new run.", path=str(path)) from error
    if [(prompt.text, seed) for prompt, seed in pairs] != list(zip(prompts.tolist(), seeds.tolist(), strict=True)):
        raise RunFolderError(
            f"references {path} belong to other prompts than this configuration's: the prompt source has changed since "
            "the run was started; start a new run.",
            path=str(path),
        )
    return [Reference(scores=row, dino_embedding=features) for row, features in zip(scores, dino, strict=True)]


def _ticket(position: int, pair: tuple[Prompt, int], config: Config) -> Ticket:
    prompt, seed = pair
    return Ticket(
        ticket_id=position,
        prompt=prompt,
        seed=seed,
        action_seed=0,
        c_nfe=config.reward.c_nfe,
        forced=Action.CONTINUE,
        explore=False,
        keep_image=False,
    )
