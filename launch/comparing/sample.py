"""`addiffusion sample`: one image in this process, and what the agent did on the way to it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.errors import PromptError, RolloutError, UsageError
from addiffusion.images import write_png
from addiffusion.policy import PolicyNetwork
from addiffusion.policy_files import TrainedPolicy, read_policy
from addiffusion.prompts.text import checked_prompt
from addiffusion.records import SCORE_NAMES, Episode, Prompt, PromptId, Ticket, TicketId
from addiffusion.scorers.base import Scoring, Unscored
from evaluation.tables import Table
from launch.comparing.orders import SampleOrder
from launch.runtime.components import observation_width, unpaid
from rollout_workers.worker import Worker

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A finished order."""

    episode: Episode
    decisions: Table
    """What was decided at each step."""
    summary: str
    """NFE, scores, and what was written."""


def draw(order: SampleOrder, *, files: Sequence[Path], overrides: Sequence[str]) -> Drawn:
    """Draw one image and write it.

    Raises:
        UsageError: prompt, policy, configuration or an output path can't be used; nothing is written then.
        RolloutError: the image could not be finished.
    """
    if not checked_prompt(order.prompt, "The prompt").strip():
        raise PromptError("the prompt is empty: say what to draw.")
    for path in filter(None, (order.out, order.film)):
        _check_writable(path)
    policy = None if order.policy is None else read_policy(str(order.policy))
    run_files = [] if policy is None else [policy.config_file]
    needs_images = bool(policy or order.film or order.scores)
    config = _for_one_image(load_config([*run_files, *files], overrides), needs_images=needs_images)
    episode = _roll_out(order, config, policy)
    write_png(order.out, episode.image.repeat(order.scale, axis=0).repeat(order.scale, axis=1))
    if order.film is not None:
        from evaluation.report.film import plot_film_strips  # noqa: PLC0415 - draws with matplotlib, for this file alone

        plot_film_strips([episode], order.film)
    return Drawn(episode=episode, decisions=_decisions(episode), summary=_summary(order, episode))


def _check_writable(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path} can't be written: give a file name that ends in .png.", path=str(path))
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} can't be written: {path.parent} is no folder you may write to.", path=str(path))


def _for_one_image(config: Config, *, needs_images: bool) -> Config:
    """One slot and one scored image at a time; nobody is paid here; where no decision needs images, none is scored."""
    seen = {} if needs_images else {"kind": "latent", "previews": ()}
    return config.model_copy(
        update={
            "reward": unpaid(config).reward,
            "observation": config.observation.model_copy(update=seen),
            "rollout": config.rollout.model_copy(update={"slots": 1}),
            "scorers": config.scorers.model_copy(update={"batch_images": 1}),
        }
    )


def _roll_out(order: SampleOrder, config: Config, trained: TrainedPolicy | None) -> Episode:
    scoring = _scoring(order, config)
    width = observation_width(config, scoring)
    if trained is not None:
        trained.check_fits(config, width)
    policy = PolicyNetwork(width, () if trained is None else config.policy.hidden, actions=config.policy.actions)
    worker = _worker(config, policy, scoring)
    worker.set_weights(_always_continue(policy) if trained is None else trained.weights, version=0)
    prompt = Prompt(prompt_id=PromptId(0), text=order.prompt, tier=0)
    price, film = config.reward.c_nfe, order.film is not None
    ticket = Ticket.greedy(TicketId(0), prompt, seed=order.seed, c_nfe=price, keep_frames=film)
    collected = worker.collect([ticket])
    if collected.failed:
        raise RolloutError(f"the image could not be drawn: {collected.failed[0].reason}")
    return collected.episodes[0]


def _scoring(order: SampleOrder, config: Config) -> Scoring:
    """The scorers, where they were asked for or the policy or the film strip shows what they say."""
    needs_images = order.policy is not None and config.observation.scores_images
    if not (order.scores or order.film is not None or needs_images):
        return Unscored()
    from addiffusion.scorers.factory import load_scoring  # noqa: PLC0415 - its libraries take seconds to import

    return load_scoring(config.scorers)


def _worker(config: Config, policy: PolicyNetwork, scoring: Scoring) -> Worker:
    return Worker(config, policy=policy, backbone=partial(load_backbone, config.backbone), scoring=lambda: scoring)


def _always_continue(policy: PolicyNetwork) -> Weights:
    """Weights of a policy without hidden layers with which its answer never depends on what it sees."""
    weight, bias = policy.state_dict()
    zeros = {name: np.zeros(tuple(value.shape), np.float32) for name, value in policy.state_dict().items()}
    zeros[bias][Action.CONTINUE] = 1.0
    return {weight: zeros[weight], bias: zeros[bias]}


def _decisions(episode: Episode) -> Table:
    """Equal decisions in a row share a line."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    clip = SCORE_NAMES.index("clip")
    scored = bool(np.isfinite(episode.scores[:-1, clip]).any())
    for name in ("steps", "action", "NFE", *(("CLIP",) if scored else ())):
        table.add_column(name, justify="left" if name in {"steps", "action"} else "right")
    first = int(episode.steps[0]) if len(episode.steps) else 0
    # The pass that the first decision looks at is one of them.
    before = episode.nfe - int(episode.nfe_spent.sum())
    table.add_row(f"0-{first}", "warm-up", str(before), *(("-",) if scored else ()), style="dim")
    taken = [*zip(episode.attempts.tolist(), episode.actions.tolist(), strict=True)]
    for (_, action), rows in groupby(range(len(taken)), key=taken.__getitem__):
        group = list(rows)
        steps = [int(episode.steps[row]) for row in group]
        span = f"{steps[0]}-{steps[-1]}" if len(steps) > 1 else str(steps[0])
        spent = int(episode.nfe_spent[group].sum())
        seen = [score for score in episode.scores[group, clip].tolist() if math.isfinite(score)]
        shown = (f"{seen[-1]:.3f}" if seen else "-",) if scored else ()
        table.add_row(span, Action(action).name.lower(), str(spent), *shown)
    return table


def _summary(order: SampleOrder, episode: Episode) -> str:
    named = zip(SCORE_NAMES, episode.scores[-1], strict=True)
    scores = f"; {', '.join(f'{name} {value:.3f}' for name, value in named)}" if order.scores else ""
    film = f"\nfilm strip: {order.film}" if order.film else ""
    return f"{episode.nfe} NFE ({episode.network_evals} network evaluations){scores}\nimage: {order.out}{film}"
