"""Everything that can be wrong with a run is found here, before anything is written or started."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from addiffusion.bank.archive import Bank, open_bank
from addiffusion.checkpoint_files import latest_checkpoint, list_checkpoints
from addiffusion.config import Config
from addiffusion.config.sampling import NOISY_SOLVERS
from addiffusion.configuration.files import load_config
from addiffusion.configuration.shown import shortened, shown
from addiffusion.errors import ConfigError
from addiffusion.policy_files import RESULT_FILE
from addiffusion.prompts import load_prompts
from addiffusion.records import Prompt
from evaluation.comparison.held_out import static_sampler
from launch.runtime.cluster import check_resources, usable_cpus
from launch.runtime.folder_lock import refuse_if_held
from launch.runtime.gpus import GpuOffer, shared_out
from launch.runtime.metrics import BETTER
from launch.training.checks import check_models
from launch.training.run_folder import RunFolder, going_on, located, planned_path
from launch.training.tracking import check_tracking
from learner.checkpoint import Checkpoint, load_checkpoint
from learner.curriculum import check_curriculum

STATIC_STEPS = "evaluation.static_steps"
"""What says how many steps the few-step sampler of the table at the end has."""
_MOVABLE = ("cluster.", "rollout.", "resume")
"""Keys that say where a run works, not what it computes: a resumed run may change them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run that can start: all its inputs are present and fit each other."""

    config: Config
    path: Path
    """Its folder; exists only when a run is gone on with."""
    train_prompts: tuple[Prompt, ...]
    test_prompts: tuple[Prompt, ...]
    checkpoint: Checkpoint | None = None
    """Where a resumed run goes on."""
    begun: bool = False
    """The folder is there, of a run that was ended before its first checkpoint."""
    bank: Bank | None = None
    """What the policy starts from."""
    stop_on_collapse: bool = False
    """End the run when an alarm of ``alarms.stop_on`` holds."""


def prepare(files: Sequence[Path], overrides: Sequence[str]) -> Plan:
    """Resolve the configuration of a run and check all it needs.

    Raises:
        UsageError: something can't be used; one sentence says what and how to put it right.
    """
    config = load_config(files, overrides)
    folder = config.resume or config.run.dir
    if folder is not None:
        refuse_if_held(located(folder))
    if config.resume is not None:
        return _resumed(config.resume, files, overrides)
    folder = going_on(config)
    if folder is None:
        return _checked(config, path=planned_path(config))
    return _gone_on_with(config, folder)


def _resumed(path: Path, files: Sequence[Path], overrides: Sequence[str]) -> Plan:
    fixed = [*map(str, files), *(item for item in overrides if not item.startswith(_MOVABLE))]
    if fixed:
        raise ConfigError(
            f"resume={path} takes its configuration from that run, so {shortened(', '.join(fixed))} can't be used with "
            "it; only overrides of cluster and rollout can.",
            overrides=fixed,
        )
    folder, _ = RunFolder.open(path := located(path))
    moved = [item for item in overrides if not item.startswith("resume")]
    return _gone_on_with(load_config([folder.config_file], moved), path)


def _gone_on_with(config: Config, path: Path) -> Plan:
    """From the last checkpoint; where there is none, from the references that have been drawn."""
    if list_checkpoints(path) or (path / RESULT_FILE).is_file():
        return _checked(config, path=path, checkpoint=load_checkpoint(latest_checkpoint(path)))
    return replace(_checked(config, path=path), begun=True)


def _checked(config: Config, *, path: Path, checkpoint: Checkpoint | None = None) -> Plan:
    if config.cluster.mode == "ray" and config.cluster.address == "local":
        gpus = torch.cuda.device_count()
        placed = shared_out(config, GpuOffer(total=gpus), where="this machine")
        check_resources(placed, cpus=usable_cpus(), gpus=gpus, where="this machine")
    check_models(config, {STATIC_STEPS: static_sampler(config)})
    _check_solver(config)
    _check_rows(config)
    _check_warm_start(config)
    check_tracking(config)
    if checkpoint is None:  # a run that was begun with another name goes on without a best checkpoint, as it began
        _check_best_metric(config)
    needs_bank = checkpoint is None or config.ppo.algorithm != "ppo"  # a checkpoint is past its warm start
    path_of_bank = config.warm_start.bank if needs_bank else None
    seed, section = config.run.seed, config.prompts
    train_prompts = load_prompts(section, split="train", count=section.train_count, seed=seed)
    check_curriculum(config.curriculum, train_prompts)
    return Plan(
        config=config,
        path=path,
        train_prompts=train_prompts,
        test_prompts=load_prompts(section, split=section.test_split, count=config.evaluation.prompt_count, seed=seed),
        checkpoint=checkpoint,
        bank=None if path_of_bank is None else open_bank(path_of_bank, config),
    )


def _check_solver(config: Config) -> None:
    solver = config.sampler.solver
    if solver in NOISY_SOLVERS:
        raise ConfigError(
            f"sampler.solver={solver} draws noise at every step, so the value of stopping could not be told from luck: "
            "train with a deterministic one such as ddim; in evaluation it can be used.",
            solver=solver,
        )


def _check_rows(config: Config) -> None:
    if config.rollout.row_buckets:
        raise ConfigError(
            "rollout.row_buckets=true lets images depend on their company by rounding, so no training could be "
            "repeated: leave it out; in evaluation it can be used.",
            row_buckets=True,
        )


def _check_warm_start(config: Config) -> None:
    reward = config.reward
    if config.warm_start.bank is not None and (reward.preset, reward.credit) != ("paired", "final"):
        raise ConfigError(
            f"warm_start.bank={config.warm_start.bank} holds the returned images alone, but reward.preset="
            f"{reward.preset} with reward.credit={reward.credit} pays on the way: set reward.preset=paired and "
            "reward.credit=final, or warm_start.bank=null.",
            preset=reward.preset,
            credit=reward.credit,
        )


def _check_best_metric(config: Config) -> None:
    name = config.checkpoint.best_metric
    if name not in BETTER:
        near = difflib.get_close_matches(name, BETTER, n=1)
        meant = f", did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"checkpoint.best_metric can't be {shown(name)}{meant} (the metrics that tell a good policy: "
            f"{', '.join(BETTER)}).",
            best_metric=name,
        )
