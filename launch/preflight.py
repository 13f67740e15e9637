"""Everything that can be wrong with a run is found here, before anything is written or started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addiffusion.bank.archive import Bank, open_bank
from addiffusion.config import Config
from addiffusion.config_sampling import NOISY_SOLVERS
from addiffusion.embedded.assets import weights_path
from addiffusion.errors import ConfigError, WeightsError
from addiffusion.prompts import load_prompts
from addiffusion.records import Prompt
from launch.cluster import check_resources, usable_cpus
from launch.config_files import load_config
from launch.folder_lock import refuse_if_held
from launch.run_folder import RunFolder, going_on, located, planned_path
from launch.tracking import check_tracking
from learner.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from learner.curriculum import check_curriculum

_MOVABLE = ("cluster.", "rollout.", "resume")
"""Keys that say where a run works, not what it computes: a resumed run may change them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run that can start: all its inputs are present and fit each other."""

    config: Config
    path: Path
    """Its folder; exists only when resuming."""
    train_prompts: tuple[Prompt, ...]
    test_prompts: tuple[Prompt, ...]
    checkpoint: Checkpoint | None = None
    """Where a resumed run goes on."""
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
    return _checked(config, path=folder, checkpoint=load_checkpoint(latest_checkpoint(folder)))


def _resumed(path: Path, files: Sequence[Path], overrides: Sequence[str]) -> Plan:
    fixed = [*map(str, files), *(item for item in overrides if not item.startswith(_MOVABLE))]
    if fixed:
        raise ConfigError(
            f"resume={path} takes its configuration from that run, so {', '.join(fixed)} can't be used with it; only "
            "overrides of cluster and rollout can.",
            overrides=fixed,
        )
    folder, _ = RunFolder.open(path := located(path))
    moved = [item for item in overrides if not item.startswith("resume")]
    checkpoint = load_checkpoint(latest_checkpoint(folder.path))
    return _checked(load_config([folder.config_file], moved), path=path, checkpoint=checkpoint)


def _checked(config: Config, *, path: Path, checkpoint: Checkpoint | None = None) -> Plan:
    if config.cluster.mode == "ray" and config.cluster.address == "local":
        check_resources(config, cpus=usable_cpus(), gpus=_gpus(config), where="this machine")
    _check_weights(config)
    _check_solver(config)
    check_tracking(config)
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


def _gpus(config: Config) -> int:
    if not (config.rollout.gpus_per_worker or config.scorers.gpus or config.ppo.gpus_per_learner):
        return 0
    import torch  # noqa: PLC0415 - takes seconds, and only runs on GPUs need to know

    return torch.cuda.device_count()


def _check_solver(config: Config) -> None:
    solver = config.sampler.solver
    if solver in NOISY_SOLVERS:
        raise ConfigError(
            f"sampler.solver={solver} draws noise at every step, so the value of stopping could not be told from luck: "
            "train with a deterministic one such as ddim; in evaluation it can be used.",
            solver=solver,
        )


def _check_weights(config: Config) -> None:
    if config.backbone.kind == "embedded":
        weights_path("pipeline", "model_index.json")
    path = config.backbone.path
    if path is not None and (path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir()):
        raise WeightsError(f"backbone.path={path} is no folder: give a pipeline's folder or a hub id.", path=path)
