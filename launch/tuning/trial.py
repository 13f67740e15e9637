"""One configuration, trained and judged: on a trajectory bank in seconds, or live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from addiffusion.bank.archive import Bank, open_bank
from addiffusion.bank.replay import BankRollouts
from addiffusion.config import Config
from addiffusion.prompts import load_prompts
from addiffusion.records import METRIC_NAMES, SCORE_NAMES
from addiffusion.rollouts import Rollouts
from addiffusion.seeds import derive_seed, generator
from addiffusion.threads import torch_threads
from evaluation.comparison.contestants import agent, cases_of
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.scores import Judge, bank_scores, paid_scores
from evaluation.numbers import mean_of_numbers
from launch.runtime.serial import serial_components
from launch.training.references import References, draw_references, training_pairs
from launch.training.warm_start import start_warm
from launch.tuning.study import Objective
from learner.algorithm_config import build_ppo_config
from learner.ppo_learner import EpisodePPOLearner
from learner.state import Learner
from learner.tickets import PoolEntry
from learner.training import Training, build_ledger
from learner.update import PolicyLearner

HELD_OUT_SHARE = 0.25
"""Of a bank's trajectories; no trial trains on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSetup:
    """What a trial trains and is judged on."""

    rollouts: Rollouts
    learner: Learner
    pool: tuple[PoolEntry, ...]
    held_out: tuple[PoolEntry, ...]
    judge: Judge
    bank: Bank | None = None
    """Trajectories for a warm start; none of the held-out ones."""


def run_trial(config: Config, objective: Objective, *, bank: Path | None) -> dict[str, float]:
    """Train ``config`` and judge it: ``objective``, ``reward``, ``nfe`` and, where known, ``scene_soft``.

    Args:
        config: of the trial.
        objective: what it is judged by.
        bank: trajectories to replay; None rolls out live, in this process.

    Raises:
        UsageError: the configuration can't be used.
        RolloutError: images could not be finished.
    """
    with _live(config) if bank is None else _on_bank(config, bank) as setup:
        training = Training(
            config, ledger=build_ledger(config, setup.pool), rollouts=setup.rollouts, learner=setup.learner
        )
        if setup.bank is not None:
            start_warm(setup.learner, setup.bank, config, advance=lambda _: None)
            training.share_weights()
        while not training.finished:
            training.step()
        cases = cases_of((one.prompt, one.seed) for one in setup.held_out)
        references = {case.index: one.reference for case, one in zip(cases, setup.held_out, strict=True)}
        policy = agent(config.sampler, policy=0, name="trial", title="trial", c_nfe=config.reward.c_nfe)
        drawn = draw_cases(setup.rollouts, policy, cases, judge=setup.judge, references=references)
        return _figures(drawn.table(cases), objective)


def _figures(table: MetricTable, objective: Objective) -> dict[str, float]:
    worth = mean_of_numbers(table.value(objective.score) - objective.c_nfe * table.nfe)
    return {"objective": worth} | {name: table.mean(name) for name in ("nfe", "reward", *SCORE_NAMES, *METRIC_NAMES)}


@contextmanager
def _on_bank(config: Config, path: Path) -> Iterator[TrialSetup]:
    bank = open_bank(path, config)
    order = np.array(_order(len(bank.trajectories)))
    cut = max(1, round(HELD_OUT_SHARE * len(order)))
    entries = [PoolEntry(prompt=one.prompt, seed=one.seed, reference=one.reference) for one in bank.trajectories]
    with torch_threads(1):
        built = build_ppo_config(config, observation_width=bank.plan.layout.width)
        yield TrialSetup(
            rollouts=BankRollouts(bank, config),
            learner=PolicyLearner(cast("EpisodePPOLearner", built.build_learner())),
            pool=tuple(entries[row] for row in sorted(order[cut:])),
            held_out=tuple(entries[row] for row in sorted(order[:cut])),
            judge=bank_scores(bank),
            bank=replace(bank, trajectories=tuple(bank.trajectories[row] for row in sorted(order[cut:]))),
        )


def _order(count: int) -> list[int]:
    """The same for all trials of all studies."""
    return torch.randperm(count, generator=generator("tune", "held out")).tolist()


@contextmanager
def _live(config: Config) -> Iterator[TrialSetup]:
    """Roles of a serial run; validation prompts judge."""
    section, seed = config.prompts, config.run.seed
    prompts = load_prompts(section, split="train", count=section.train_count, seed=seed)
    count = config.evaluation.prompt_count
    others = load_prompts(section, split="validation", count=count, seed=seed)
    pairs = training_pairs(prompts, seed=seed)
    held_out = [(prompt, derive_seed(seed, "validation", prompt.prompt_id)) for prompt in others]
    with serial_components(config) as components:
        references: References = {}
        for drawn in draw_references(components.rollouts, [*pairs, *held_out], config):
            references |= drawn
        entries = [
            PoolEntry(prompt=prompt, seed=image_seed, reference=references[prompt.text, image_seed])
            for prompt, image_seed in [*pairs, *held_out]
        ]
        yield TrialSetup(
            rollouts=components.rollouts,
            learner=components.learner,
            pool=tuple(entries[: len(pairs)]),
            held_out=tuple(entries[len(pairs) :]),
            judge=paid_scores(components.scoring),
        )
