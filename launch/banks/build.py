"""`addiffusion bank build`: roll every (prompt, seed) out once, through the same roles as a training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console

from addiffusion.bank.archive import read_shard, shard_path, write_shard
from addiffusion.bank.plan import PLAN_FILE, BankPlan, bank_identity, check_fits, read_plan
from addiffusion.bank.trajectory import Trajectory, trajectory_of
from addiffusion.config import Config
from addiffusion.errors import ArchiveError, RolloutError
from addiffusion.prompts import load_prompts
from addiffusion.records import METRIC_NAMES, FailedEpisode, Prompt, PromptId, RecordAllStops, Ticket, TicketId
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from addiffusion.seeds import derive_seed
from launch.banks.orders import BankOrder
from launch.runtime.build import build_components
from launch.runtime.components import Roles, observation_layout
from launch.runtime.console import RunView, duration
from launch.runtime.folder_lock import is_vacant, locked
from launch.runtime.interrupt import interruptible
from launch.training.checks import check_models
from learner.settings import drawn_setting

STREAMS: dict[str, str] = {"train": "train"}
"""Name of the seed stream by split: a bank of training prompts holds the images that `train` trains on, every other
one those that a held-out comparison draws."""
HELD_OUT_STREAM = "holdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """How a build ended."""

    trajectory_count: int
    new_count: int
    seconds: float
    complete: bool


def build(order: BankOrder, config: Config, *, console: Console, roles: Roles = build_components) -> Built:
    """Build the bank, or what is missing of it; after Ctrl-C the next call goes on.

    Args:
        order: which bank, of which prompts, and where.
        config: of the roles; a bank that is there must have the same.
        console: where progress is shown.
        roles: who rolls out and scores.

    Raises:
        ArchiveError: the folder holds something else, or a bank of another configuration.
        RolloutError: a trajectory could not be finished.
    """
    start = time.perf_counter()
    _check_folder(order, config)
    check_models(config)
    count = order.count or config.prompts.train_count
    prompts = load_prompts(config.prompts, split=order.split, count=count, seed=config.run.seed)
    view = RunView(console, iterations=1)
    view.say("starting rollout workers and reward service")
    with ExitStack() as stack:
        lock = stack.enter_context(locked(order.folder))
        with view.progress("starting"):
            components = stack.enter_context(roles(config))
        plan = _planned(order, config, components.scoring)
        plan.write(order.folder)
        components.keep_reports(order.folder)
        missing = [number for number in range(-(-plan.count // plan.shard_size)) if not _whole(order, plan, number)]
        label = f"trajectories ({count}, of which {_size(missing, plan)} are missing)"
        stop = "finishing these trajectories (Ctrl-C again to leave at once)"
        with view.progress(label, _size(missing, plan)) as advance, interruptible(lambda: view.say(stop)) as interrupt:
            new_count = 0
            for number in missing:
                if interrupt.requested:
                    break
                lock.check()
                new_count += _build_shard(components.rollouts, order, config, plan, number, prompts)
                advance(len(_rows(plan, number)))
    done = plan.count - _size(missing, plan) + new_count
    seconds = time.perf_counter() - start
    view.say(f"{done} of {plan.count} trajectories are in {order.folder}; {new_count} new in {duration(seconds)}")
    return Built(trajectory_count=done, new_count=new_count, seconds=seconds, complete=done == plan.count)


def bank_seed(run_seed: int, split: str, prompt_id: PromptId) -> int:
    """Seed of a prompt's image: that of `train` for training prompts, else that of the held-out comparison."""
    return derive_seed(run_seed, STREAMS.get(split, HELD_OUT_STREAM), prompt_id)


def _check_folder(order: BankOrder, config: Config) -> None:
    folder = order.folder
    if not (folder / PLAN_FILE).is_file():
        if not is_vacant(folder):
            raise ArchiveError(
                f"{folder} holds something that is no trajectory bank: give a new folder.", path=str(folder)
            )
        return
    plan = read_plan(folder)
    check_fits(plan, config, folder)
    if (plan.split, plan.stride) != (order.split, config.bank.every):
        raise ArchiveError(
            f"{folder} is a bank of the {plan.split} split with bank.every={plan.stride}, so it can't go on with "
            f"{order.split} and {config.bank.every}: give a new folder.",
            path=str(folder),
        )


def _planned(order: BankOrder, config: Config, scoring: Scoring) -> BankPlan:
    """The plan of a new bank, or that of the one there is, grown to the count that is asked for now."""
    count = order.count or config.prompts.train_count
    known = read_plan(order.folder) if (order.folder / PLAN_FILE).is_file() else None
    scenes = config.prompts.source == "embedded" and set(METRIC_NAMES) <= set(scoring.names)
    return BankPlan(
        identity=bank_identity(config),
        layout=observation_layout(config, scoring),
        split=order.split,
        count=count if known is None else max(count, known.count),
        stride=config.bank.every,
        metrics=METRIC_NAMES if scenes else (),
        shard_size=config.bank.shard_size if known is None else known.shard_size,
    )


def _whole(order: BankOrder, plan: BankPlan, number: int) -> bool:
    """Whether a shard is there with all it should hold; the last one of a bank that has grown is written again."""
    path = shard_path(order.folder, number)
    return path.is_file() and len(read_shard(path, plan)) == len(_rows(plan, number))


def _rows(plan: BankPlan, number: int) -> range:
    return range(number * plan.shard_size, min((number + 1) * plan.shard_size, plan.count))


def _size(numbers: Sequence[int], plan: BankPlan) -> int:
    return sum(len(_rows(plan, number)) for number in numbers)


def _build_shard(
    rollouts: Rollouts, order: BankOrder, config: Config, plan: BankPlan, number: int, prompts: Sequence[Prompt]
) -> int:
    record_stops = RecordAllStops(stride=plan.stride, metrics=plan.metrics)
    tickets = [_ticket(row, prompts[row], order, config, record_stops) for row in _rows(plan, number)]
    done: dict[TicketId, Trajectory] = {}
    failed: tuple[FailedEpisode, ...] = ()
    for _ in range(config.rollout.max_reissues + 1):
        collected = rollouts.collect([ticket for ticket in tickets if ticket.ticket_id not in done])
        done |= {episode.ticket.ticket_id: trajectory_of(episode) for episode in collected.episodes}
        failed = collected.failed
        if not failed or any(one.final for one in failed):
            break
    if failed:
        raise RolloutError(
            f"The trajectory of {failed[0].ticket.prompt.text!r} could not be rolled out: {failed[0].reason} What is "
            f"finished is in {order.folder}; the same command goes on.",
            ticket_id=failed[0].ticket.ticket_id,
        )
    write_shard(shard_path(order.folder, number), [done[ticket.ticket_id] for ticket in tickets], plan)
    return len(tickets)


def _ticket(row: int, prompt: Prompt, order: BankOrder, config: Config, record_stops: RecordAllStops) -> Ticket:
    seed = bank_seed(config.run.seed, order.split, prompt.prompt_id)
    return Ticket.recording_stops(
        record_stops,
        TicketId(row),
        prompt,
        seed=seed,
        c_nfe=config.reward.c_nfe,
        keep_image=False,
        setting=drawn_setting(config, seed),
    )
