"""Fleets of simulated workers under the real driver, dispatch, object store and learner: what an iteration takes."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, cast

import numpy as np
import ray
from ray.actor import ActorHandle

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.prompts import load_prompts
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode, Prompt, PromptId, Reference, Ticket, TicketId
from launch.bench.orders import TrainOrder
from launch.bench.simulated import SimulatedWorkers
from learner.algorithm_config import build_ppo_config
from learner.iteration import IterationReport
from learner.losses import WorkerId
from learner.ppo_learner import EpisodePPOLearner
from learner.rollouts import RayRollouts
from learner.tickets import PoolEntry
from learner.training import Training, build_ledger
from learner.update import PolicyLearner

_PROCESSES: Final = 8
"""Most processes of a fleet, whatever its size: each has a thread for every call of its workers."""
_CALLS: Final = 2
"""Calls that a worker has at most."""
_START_TIMEOUT_S: Final = 180.0
_TEMPLATES: Final = 16
_DINO_WIDTH: Final = 384
"""Of DINO ViT-S/8, whose features of its image every episode brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFigures:
    """An iteration of a fleet: medians over iterations, in seconds, and what it moved."""

    workers: int
    iteration_s: float
    waited_s: float
    """For workers; no less than they sleep."""
    update_s: float
    """Of the learner."""
    broadcast_s: float
    """Until the weights are in the object store."""
    dispatch_s: float
    """Tickets out, episodes in: this process's own work between two answers."""
    driver_s: float
    """Everything else: ledger, audit, statistics."""
    cpu_s: float
    """CPU time of the driver's thread in all of that: what a machine with idle cores would take beside the waiting."""
    weights_mb: float
    """Of the new weights, which each worker fetches."""
    episodes_mb: float
    """Of all episodes of an iteration."""
    checkpoint_mb: float
    """On disk; it does not grow with workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSetup:
    """What all fleets have in common."""

    order: TrainOrder
    config: Config
    """Of the learner."""
    templates: tuple[Episode, ...]
    """Episodes of real size, which the workers return in turn."""
    per_episode_s: float
    """Sleep of a worker in place of an episode."""

    @property
    def rollouts_s(self) -> float:
        """What each worker sleeps in an iteration."""
        return self.order.tickets * self.per_episode_s

    @property
    def stretch(self) -> int:
        """Episodes that a worker finishes in a call: what half of its slots do in ``rollout.carry_ticks`` passes."""
        rollout = self.config.rollout
        passes = fmean(episode.nfe for episode in self.templates)
        return max(1, round(rollout.carry_ticks * (rollout.slots / 2) / passes))


def made_templates(width: int, decisions: int) -> tuple[Episode, ...]:
    """Episodes of noise without an image, with observations (d, ``width``); d is ``decisions`` on average, +-50 %."""
    draws = np.random.default_rng(0)
    lengths = np.linspace(decisions / 2, 3 * decisions / 2, _TEMPLATES).round().astype(int)
    return tuple(_made(int(length), width, draws) for length in lengths)


def _made(length: int, width: int, draws: np.random.Generator) -> Episode:
    prompt = Prompt(prompt_id=PromptId(0), text="a red circle left of a blue square", tier=1)
    names = (Action.CONTINUE, Action.STOP, Action.REFINE)
    return Episode(
        ticket=Ticket(ticket_id=TicketId(0), prompt=prompt, seed=0, action_seed=0, c_nfe=0.01),
        phi=draws.standard_normal((length, width), np.float32),
        actions=np.array([Action.CONTINUE] * (length - 1) + [Action.STOP], np.int64),
        log_prob=np.full(length, -np.log(len(names)), np.float32),
        logits=np.zeros((length, len(names)), np.float32),
        steps=np.arange(length),
        nfe_spent=np.ones(length, np.int64),
        scores=draws.standard_normal((length + 1, len(SCORE_NAMES)), np.float32),
        terms=draws.standard_normal((length, len(TERM_NAMES)), np.float32),
        final_dino=draws.standard_normal(_DINO_WIDTH, np.float32),
        image=np.zeros((0, 0, 3), np.uint8),
        nfe=length,
        network_evals=2 * length,
        weight_version=0,
        seconds=1.0,
    )


def simulated_fleet(setup: FleetSetup, workers: int) -> FleetFigures:
    """An iteration with simulated workers, each of which has the same work, however many there are."""
    ppo, order = setup.config.ppo, setup.order
    ahead = 1 + order.iterations + ppo.max_lag  # the last measured iteration begins later ones as well
    ppo = ppo.model_copy(update={"batch_size": order.tickets * workers, "iterations": ahead})
    config = setup.config.model_copy(update={"ppo": ppo})
    processes = _processes(setup, workers)
    rollouts = RayRollouts({WorkerId(number): processes[number % len(processes)] for number in range(workers)}, config)
    width = setup.templates[0].phi.shape[1]
    learner = PolicyLearner(
        cast("EpisodePPOLearner", build_ppo_config(config, observation_width=width).build_learner())
    )
    training = Training(config, ledger=build_ledger(config, pool_of(config)), rollouts=rollouts, learner=learner)
    training.step()  # whatever is slow once
    parts = [_timed(training.step, rollouts) for _ in range(order.iterations)]
    for process in processes:
        ray.kill(process)
    with tempfile.TemporaryDirectory() as home:
        files = training.save(Path(home)).rglob("*")
        checkpoint_mb = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    return FleetFigures(
        workers=workers,
        **{name: median(part[name] for part in parts) for name in parts[0]},
        weights_mb=_megabytes(learner.weights()),
        episodes_mb=order.tickets * workers * fmean(map(_megabytes, setup.templates)),
        checkpoint_mb=checkpoint_mb,
    )


def unit_sizes(templates: Sequence[Episode]) -> dict[str, float]:
    """Kilobytes of what travels for one episode, as it is pickled; means over ``templates``."""
    bare = [replace(episode, image=np.zeros((0, 0, 3), np.uint8)) for episode in templates]
    reference = [Reference(scores=episode.scores[-1], dino_embedding=episode.final_dino) for episode in templates]
    kinds: dict[str, Sequence[object]] = {
        "ticket": [replace(episode.ticket, reference=None) for episode in templates],
        "reference": reference,
        "episode": bare,
        **{
            f"episode with an image of {side} px": [replace(bare[0], image=np.zeros((side, side, 3), np.uint8))]
            for side in (512, 1024)
        },
    }
    return {name: 1e3 * fmean(map(_megabytes, ones)) for name, ones in kinds.items()}


def pool_of(config: Config) -> list[PoolEntry]:
    """The training prompts without references."""
    section, seed = config.prompts, config.run.seed
    prompts = load_prompts(section, split="train", count=section.train_count, seed=seed)
    return [PoolEntry(prompt=prompt, seed=prompt.prompt_id) for prompt in prompts]


def _processes(setup: FleetSetup, workers: int) -> list[ActorHandle[Any]]:
    """Processes that stand for ``workers`` together, once all of them answer."""
    count = min(workers, _PROCESSES)
    threads = _CALLS * -(-workers // count)
    kind: Any = ray.remote(SimulatedWorkers).options(num_cpus=0.01, max_concurrency=threads)
    shared = ray.put(list(setup.templates))
    processes = [
        kind.remote(shared, seconds_per_episode=setup.per_episode_s, stretch=setup.stretch) for _ in range(count)
    ]
    ray.get([process.ping.remote() for process in processes], timeout=_START_TIMEOUT_S)
    return processes


def _timed(step: Callable[[], IterationReport], rollouts: RayRollouts) -> dict[str, float]:
    """Seconds of one iteration and of its parts."""
    waited_before_s, started, cpu_s = rollouts.waited_s, time.perf_counter(), time.thread_time()
    report = step()
    cpu_s = time.thread_time() - cpu_s
    whole_s, waited_s = time.perf_counter() - started, rollouts.waited_s - waited_before_s
    return {
        "iteration_s": whole_s,
        "waited_s": waited_s,
        "update_s": report.update_s - report.broadcast_s,
        "broadcast_s": report.broadcast_s,
        "dispatch_s": report.collect_s - waited_s,
        "driver_s": whole_s - report.collect_s - report.update_s,
        "cpu_s": cpu_s,
    }


def _megabytes(value: object) -> float:
    return len(pickle.dumps(value, protocol=5)) / 1e6
