"""Baselines with loops or weights of their own: built where their parts are at hand, skipped by name where not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone
from addiffusion.baseline import Baseline
from addiffusion.config import BackboneSection, Config, SamplerSection
from addiffusion.policy import PolicyNetwork
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from evaluation.comparison.contestants import Contestant
from launch.runtime.components import unpaid
from rollout_workers.worker import Worker

SAG, EXCITE, LCM, TURBO = "self-attention-guidance", "attend-and-excite", "lcm-lora-4", "sdxl-turbo-4"
_TITLES = {
    SAG: "self-attention guidance",
    EXCITE: "Attend-and-Excite",
    LCM: "LCM-LoRA-4",
    TURBO: "SDXL-Turbo-4",
}
_DISTILLED_STEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Literature:
    """Who can take part, by whom they are drawn, and who can't."""

    contestants: tuple[Contestant, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    """Who draws them; the name is ``Contestant.via``."""
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    """Title to reason."""


def literature(
    config: Config, *, lcm_lora: Path | None = None, sdxl_turbo: Path | None = None, steps: int = 20
) -> Literature:
    """Baselines for the model of ``config``.

    Args:
        config: of the agent.
        lcm_lora: LCM-LoRA file of this model.
        sdxl_turbo: folder of SDXL-Turbo.
        steps: of the guided samplers.
    """
    contestants: list[Contestant] = []
    baselines: list[Baseline] = []
    skipped: dict[str, str] = {}
    for name in (SAG, EXCITE):
        if config.backbone.kind in ("embedded", "stable_diffusion"):
            contestants.append(_contestant(name, _plain(config.sampler, "ddim", steps)))
            baselines.append(Baseline(name=name, make=partial(_guided, name, config)))
        else:
            skipped[_TITLES[name]] = f"there is no pipeline of it for {config.backbone.kind}"
    distilled = {
        LCM: (_lcm_backbone(config, lcm_lora), "lcm", "give --lcm-lora FILE, a LoRA of this very model"),
        TURBO: (_turbo_backbone(config, sdxl_turbo), "euler", "give --sdxl-turbo FOLDER with its weights"),
    }
    for name, (backbone, solver, hint) in distilled.items():
        if backbone is None:
            skipped[_TITLES[name]] = f"its weights are not at hand: {hint}"
            continue
        contestants.append(_contestant(name, _plain(config.sampler, solver, _DISTILLED_STEPS, spacing="trailing")))
        baselines.append(Baseline(name=name, make=partial(distilled_worker, config, backbone, None)))
    return Literature(contestants=tuple(contestants), baselines=tuple(baselines), skipped=skipped)


def distilled_worker(
    config: Config, section: BackboneSection, load: Callable[[], Backbone] | None, scoring: Scoring
) -> Rollouts:
    """A worker in this process with a model of its own.

    Args:
        config: of the agent, for all but the model.
        section: of the model.
        load: makes the model; None loads it from where ``section`` says.
        scoring: what scores the returned images.
    """
    changed = unpaid(config).model_copy(update={"backbone": section})
    return Worker(
        changed, policy=PolicyNetwork(1, ()), backbone=load or partial(load_backbone, section), scoring=lambda: scoring
    )


def _guided(name: str, config: Config, scoring: Scoring) -> Rollouts:
    from addiffusion.backbones.guided import GuidedPipeline  # noqa: PLC0415 - loads diffusers' deprecated pipelines
    from evaluation.comparison.guided import GuidedRollouts  # noqa: PLC0415

    guidance = SAG if name == SAG else EXCITE
    return GuidedRollouts(GuidedPipeline(guidance, config.backbone), scoring, config.sampler)


def _contestant(name: str, sampler: SamplerSection) -> Contestant:
    title = _TITLES[name] if name in (LCM, TURBO) else f"{_TITLES[name]}, DDIM-{sampler.num_steps}"
    return Contestant(name=name, title=title, kind="other", sampler=sampler, via=name, repeats=1)


def _plain(sampler: SamplerSection, solver: str, steps: int, *, spacing: str | None = None) -> SamplerSection:
    change = {"solver": solver, "num_steps": steps, "warmup_steps": 1, "finish_steps": 0}
    return sampler.model_copy(update=change | ({} if spacing is None else {"spacing": spacing}))


def _lcm_backbone(config: Config, lora: Path | None) -> BackboneSection | None:
    if lora is None:
        return None
    return config.backbone.model_copy(update={"lora": str(lora), "guidance_scale": 1.0})


def _turbo_backbone(config: Config, folder: Path | None) -> BackboneSection | None:
    if folder is None:
        return None
    return BackboneSection(
        kind="sdxl", path=str(folder), guidance_scale=0.0, device=config.backbone.device, dtype=config.backbone.dtype
    )
