"""What the models of a run can be refused for, found from names and small files: nothing is loaded or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from addiffusion.assets import weights_path
from addiffusion.backbones.model_files import SchedulerOptions, own_image_size, scheduler_of, scheduler_options
from addiffusion.backbones.model_index import check_folder
from addiffusion.backbones.part_files import PIPELINES, refuse_file
from addiffusion.config import BackboneSection, Config, SamplerSection
from addiffusion.config.sampling import steps_named
from addiffusion.embedded.world.scenes import IMAGE_SIZE
from addiffusion.errors import ConfigError, WeightsError


def check_models(config: Config, schedules: Mapping[str, SamplerSection] = MappingProxyType({})) -> None:
    """Refuse models, devices, scorers and schedules that can't work together on this machine.

    Args:
        config: of the run.
        schedules: those it has beside its sampler's, each by the key that says how many steps it has.

    Raises:
        UsageError: something can't be used; one sentence says what and how to put it right.
    """
    check_files(config)
    check_scorers_fit(config)
    check_prompts_fit(config)
    if works_here(config):
        check_devices(config)
        check_own_scorers(config)
    check_schedules(config, {"sampler.num_steps": config.sampler, **schedules})


def works_here(config: Config) -> bool:
    """Whether the roles work on this machine, so that what it lacks is lacking."""
    return config.cluster.mode == "serial" or config.cluster.address == "local"


def check_files(config: Config) -> None:
    """Refuse model files that are named as local and do not lie there.

    Raises:
        WeightsError: the pipeline, its tiny autoencoder or its LoRA is missing, or not whole.
        ConfigError: the pipeline is of another family.
    """
    section = config.backbone
    if section.kind == "embedded":
        weights_path("pipeline", "model_index.json")
    if section.path is not None:
        named, pipeline = f"backbone.path={section.path!r}", PIPELINES[section.kind]
        refuse_file(named, section.path, pipeline)
        if Path(section.path).is_dir():
            check_folder(Path(section.path), pipeline, named=named)
    for key, source in (("path", section.path), ("preview", section.preview)):
        if source is not None and source.startswith((".", "/")) and not Path(source).is_dir():
            raise WeightsError(f"backbone.{key}={source} is no folder: give a model's folder or a hub id.", path=source)
    if section.lora is not None and not Path(section.lora).is_file():
        raise WeightsError(
            f"backbone.lora={section.lora} is no file: give a local .safetensors file.", path=section.lora
        )


def check_scorers_fit(config: Config) -> None:
    """Refuse the embedded scorers for images they were not made for.

    Raises:
        ConfigError: the model draws other images; the message has the keys that put it right.
    """
    size = own_image_size(config.backbone)
    if config.scorers.kind != "embedded" or size == IMAGE_SIZE:
        return
    drawn = "images of another size" if size is None else f"images of {size} pixels a side"
    keys, lines = ["scorers.kind=pretrained"], ["scorers: {kind: pretrained}"]
    if config.prompts.source == "embedded":
        keys, lines = [*keys, "prompts.source=prompts.txt"], [*lines, "prompts: {source: prompts.txt}"]
    raise ConfigError(
        f"backbone.kind={config.backbone.kind} draws {drawn}, but scorers.kind=embedded judges only the embedded "
        f"world's own, of {IMAGE_SIZE}: add `{' '.join(keys)}` to the command, or `{'` and `'.join(lines)}` as lines "
        "of a --config file, with your own file of prompts (docs/rewards.md says where the scorers' weights come "
        "from).",
        image_size=size,
    )


def check_prompts_fit(config: Config) -> None:
    """Refuse the embedded world's captions for models and scorers of the real one.

    Raises:
        ConfigError: no prompts are given; the message has the key.
    """
    real = config.backbone.kind != "embedded" and config.scorers.kind != "embedded"
    if real and config.prompts.source == "embedded":
        raise ConfigError(
            f"prompts.source=embedded describes shapes of the embedded world, but backbone.kind={config.backbone.kind} "
            "draws anything: add `prompts.source=prompts.txt` to the command, or `prompts: {source: prompts.txt}` as a "
            "line of a --config file, with your own file of prompts (PartiPrompts' .tsv, COCO's .json and others are "
            "read as they are published).",
            kind=config.backbone.kind,
        )


def check_devices(config: Config) -> None:
    """Refuse devices that this machine has not.

    Raises:
        ConfigError: torch has no such device here, or graphs are asked for without a GPU.
    """
    from addiffusion.devices import resolve_device  # noqa: PLC0415 - imports torch

    names = {"backbone.device": config.backbone.device, "scorers.device": config.scorers.device}
    kinds = {key: resolve_device(name, key=key).type for key, name in names.items()}
    for key, kind in kinds.items():
        if kind == "meta":  # tensors without content: for building models, not for runs
            raise ConfigError(f"{key}={names[key]!r} computes nothing: use auto, cpu or cuda.", device=names[key])
    kind = kinds["backbone.device"]
    if config.backbone.compile == "cuda_graphs" and kind != "cuda":
        raise ConfigError(f"backbone.compile=cuda_graphs needs a GPU, not {kind}: use default or off.")


def check_own_scorers(config: Config) -> None:
    """Refuse scorers of a user's own that can't be imported.

    Raises:
        ConfigError: there is no such module or factory.
    """
    if config.scorers.extra:
        from addiffusion.scorers.plugins import find_plugin  # noqa: PLC0415 - imports torch

        for path in config.scorers.extra:
            find_plugin(path)


def check_schedules(config: Config, schedules: Mapping[str, SamplerSection]) -> None:
    """Refuse schedules that the model's solver can't be laid out on, where the model's files are at hand.

    Args:
        config: of the run.
        schedules: each by the key that says how many steps it has.

    Raises:
        ConfigError: there is no such schedule; the message names its key.
        WeightsError: the file of the model's scheduler can't be used.
    """
    options = scheduler_options(config.backbone)
    unknown = {key: one for key, one in schedules.items() if not _is_plain(config.backbone, one, options)}
    scheduler = scheduler_of(options) if options is not None and unknown else None
    if scheduler is None:
        return
    from addiffusion.sampling.solver_tables.build import table_on  # noqa: PLC0415 - imports torch

    for key, sampler in unknown.items():
        with steps_named(key):
            table_on(scheduler, sampler, config.refine)


def _is_plain(section: BackboneSection, sampler: SamplerSection, options: SchedulerOptions | None) -> bool:
    """Whether it is one of the embedded model's own, which has them in every length; to see that takes no diffusers."""
    if options is None or section.kind != "embedded":
        return False
    fits = sampler.num_steps <= options.values.get("num_train_timesteps", 0)
    return fits and (sampler.solver, sampler.spacing) == ("ddim", "pipeline")
