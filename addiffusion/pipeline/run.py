"""One call under a policy: what is drawn, on which engine, and how the result is decoded."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones import backbone_class
from addiffusion.backbones.loading import load_preview
from addiffusion.backbones.pipeline import PipelineBackbone
from addiffusion.config import BackboneSection, Config, RefineSection, SamplerSection
from addiffusion.errors import ArgumentError
from addiffusion.observation.builder import make_observation_builder
from addiffusion.pipeline.arguments import CallArguments, initial_noise, per_image, seed_of
from addiffusion.pipeline.batch import Decider, EncodedTexts, ImageBatch
from addiffusion.pipeline.bound import check_bound
from addiffusion.pipeline.decoding import decoded
from addiffusion.pipeline.fit import check_widths, differences, tell_once
from addiffusion.pipeline.loop import ImageLoop, ImageTask, setting_of
from addiffusion.pipeline.output import AdaptivePipelineOutput
from addiffusion.pipeline.policy import Policy
from addiffusion.pipeline.price import PriceDial
from addiffusion.pipeline.scoring import scoring_of
from addiffusion.records import Prompt, PromptId, Ticket, TicketId
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.build import table_for
from addiffusion.sampling.solver_tables.schedules import Schedules
from addiffusion.sampling.solver_tables.table import SolverTable
from addiffusion.setting import Setting

MOST_SLOTS = 8
"""Images at once, where a call does not say how many."""
_TABLES = 8
"""Solver tables that a pipeline remembers: a tenth of a second each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a pipeline keeps from call to call."""

    tables: dict[Any, SolverTable] = field(default_factory=dict[Any, SolverTable])
    """By scheduler and schedule."""
    previews: dict[str, Any] = field(default_factory=dict[str, Any])
    """Tiny autoencoders through which policies look at images."""
    told: set[str] = field(default_factory=set[str])
    """Differences from a policy's training that were warned of."""


class PolicyRun:
    """The images of one call."""

    def __init__(self, pipe: Any, call: CallArguments, policy: Policy, backbone: PipelineBackbone) -> None:
        """Everything that can be refused is refused here, before the first pass.

        Args:
            pipe: the adaptive pipeline.
            call: what it was given.
            policy: decides.
            backbone: the pipeline's own models, borrowed.

        Raises:
            ValueError: an argument can't be used.
            UsageError: the policy does not fit the model, or the model can't be sampled so.
        """
        self._pipe, self._call, self._policy, self._backbone = pipe, call, policy, backbone
        self._config = _config_of(policy, call)
        sampler, refine = self._config.sampler, self._config.refine
        self._table = _table(pipe, backbone, sampler, refine)
        check_bound(call.max_cost, sampler, self._table)
        scoring = scoring_of(pipe, policy)
        tasks = self._tasks()
        texts = self._texts(tasks, scoring)
        scales = [_setting(task).guidance_scale or 0.0 for task in tasks]
        for difference in differences(pipe, policy, self._config, backbone=backbone, scales=scales):
            tell_once(difference, pipe.remembered.told)
        self._prompt_embeds = [texts.condition(task.ticket).hidden for task in tasks]
        observations = make_observation_builder(self._config, backbone=backbone, scoring=scoring, tickets=texts)
        check_widths(policy, observations.layout)
        decider = Decider(
            act=policy.actor(),
            observations=observations,
            scoring=scoring,
            deterministic=call.deterministic,
        )
        scale = max(scales)
        self._slots = call.slots or min(len(tasks), MOST_SLOTS)
        engine = Engine(
            backbone,
            sampler,
            refine,
            slots=self._slots,
            guidance_scale=scale,
            schedules=Schedules(backbone, sampler, refine, table=self._table),
        )
        self._loop = ImageLoop(ImageBatch(engine, decider, texts), self._table, tasks)
        self._count = len(tasks)
        pipe._guidance_scale = call.guidance_scale if isinstance(call.guidance_scale, int | float) else scale
        pipe._num_timesteps = self._table.num_steps

    @classmethod
    @contextmanager
    def begun(cls, pipe: Any, call: CallArguments, policy: Policy) -> Generator[Self]:
        """A run on a pipeline's own models, which are left as they were found."""
        kind = pipe.backbone_kind
        section = BackboneSection(kind=kind, path="the pipeline", guidance_scale=1.0)
        size, preview = (call.height, call.width), _preview(pipe, policy)
        with backbone_class(kind).borrow(pipe, section, size=size, preview=preview) as backbone:
            yield cls(pipe, call, policy, backbone)

    def draw(self) -> None:
        """Work until every image is done, or the callback interrupts.

        Raises:
            RolloutError: an image could not be drawn.
        """
        pipe, loop, ticks = self._pipe, self._loop, 0
        whole = self._count * self._table.num_steps
        with pipe.progress_bar(total=whole) as bar:
            while loop.busy and not pipe._interrupt:
                loop.tick()
                if self._call.callback_on_step_end is not None:
                    self._call_back(ticks)
                loop.collect()
                ticks += 1
                done = min(loop.spent, whole) if loop.busy else whole  # what a stop saves is done at the end
                bar.update(max(0, done - bar.n))
        loop.end()
        pipe._num_timesteps = ticks

    def output(self) -> AdaptivePipelineOutput:
        """The images as they were asked for."""
        drawn = self._loop.drawn()
        images, flagged = self._images(torch.stack([one.z0.clone() for one in drawn]))
        return AdaptivePipelineOutput(
            images=images,
            nfe=[one.nfe for one in drawn],
            network_evals=[one.network_evals for one in drawn],
            actions=[[action.name.lower() for action in one.actions] for one in drawn],
            stopped_at=[one.stopped_at for one in drawn],
            nsfw_content_detected=flagged,
            cost=[one.cost for one in drawn],
        )

    # ---------------------------------------------------------------- before

    def _tasks(self) -> list[ImageTask]:
        call, prompts = self._call, self._call.prompts
        spread: dict[str, int] = {"prompt_count": len(prompts), "times": call.num_images_per_prompt or 1}
        count = spread["prompt_count"] * spread["times"]
        wanted = self._config.backbone.guidance_scale if call.guidance_scale is None else call.guidance_scale
        scales = per_image(wanted, name="guidance_scale", **spread)
        scales = [_scale(scale, guided=self._backbone.guided) for scale in scales]
        own = self._config.backbone.negative_prompt or None
        negatives = per_image(
            own if call.negative_prompt is None else call.negative_prompt, name="negative_prompt", **spread
        )
        noise = initial_noise(
            call, self._backbone.latent_shape, count, device=self._backbone.device, dtype=self._backbone.dtype
        )
        guided, price, cap = max(scales) > 1, self._price(), self._call.max_cost or self._config.sampler.max_cost
        texts = per_image(prompts, name="prompt", **spread)
        tasks: list[ImageTask] = []
        for index, (text, negative, scale) in enumerate(zip(texts, negatives, scales, strict=True)):
            prompt, own_noise = Prompt(prompt_id=PromptId(index), text=text, tier=0), noise[index]
            setting = setting_of(guidance_scale=scale, negative=negative if guided else None, cap=cap, guided=guided)
            ticket = Ticket.greedy(TicketId(index), prompt, seed=seed_of(own_noise), c_nfe=price, setting=setting)
            tasks.append(ImageTask(ticket=ticket, noise=own_noise))
        return tasks

    def _price(self) -> float:
        call, dial = self._call, PriceDial.of(self._config, self._policy.card)
        own = call.c_nfe or dial.own
        return own if call.speed is None else dial.at_speed(call.speed, self._table.num_steps)

    def _texts(self, tasks: Sequence[ImageTask], scoring: Any) -> EncodedTexts:
        """Every text of the call in one go, the empty one that guidance leads away from too."""
        prompts = list(dict.fromkeys(task.ticket.prompt.text for task in tasks))
        negatives = [text for task in tasks if (text := _setting(task).negative_prompt) is not None]
        texts = list(dict.fromkeys([*prompts, *negatives, ""]))
        embeddings = dict(zip(texts, self._backbone.encode_prompts(texts), strict=True))
        if self._config.observation.kind != "clip":
            return EncodedTexts(embeddings=embeddings, clip_embeddings={})
        vectors = scoring.embed_text(prompts)
        return EncodedTexts(embeddings=embeddings, clip_embeddings=dict(zip(prompts, vectors, strict=True)))

    # ---------------------------------------------------------------- on the way

    def _call_back(self, tick: int) -> None:
        pipe, loop, wanted = self._pipe, self._loop, self._call.tensor_inputs
        made = {
            "latents": loop.latents,
            "z0_pred": loop.predictions,
            "prompt_embeds": lambda: torch.stack(self._prompt_embeds).to(self._backbone.device),
        }
        given, scale = {name: made[name]() for name in wanted}, pipe._guidance_scale
        assert self._call.callback_on_step_end is not None
        answered: dict[str, Tensor] | None = self._call.callback_on_step_end(pipe, tick, loop.timesteps(), given)
        latents = None if answered is None else answered.get("latents")
        if latents is not None:
            loop.put_latents(latents)
        if pipe._guidance_scale != scale and self._backbone.guided:
            loop.set_guidance_scale(_scale(float(pipe._guidance_scale), guided=True))

    # ---------------------------------------------------------------- after

    def _images(self, z0: Float[Tensor, "n c h w"]) -> tuple[Any, list[bool] | None]:
        """Images and, where the pipeline has a safety checker, what it says of them."""
        pipe, wanted = self._pipe, self._call.output_type
        if wanted == "latent":
            return self._backbone.packed(z0.to(self._backbone.dtype)), None
        image = decoded(pipe, self._backbone, z0, slots=self._slots)
        flagged: Any = None
        if getattr(pipe, "safety_checker", None) is not None:
            image, flagged = pipe.run_safety_checker(image, self._backbone.device, self._backbone.dtype)
        if getattr(pipe, "watermark", None) is not None:
            image = pipe.watermark.apply_watermark(image)
        kept = {} if flagged is None else {"do_denormalize": [not one for one in flagged]}
        return pipe.image_processor.postprocess(image, output_type=wanted, **kept), flagged


def _setting(task: ImageTask) -> Setting:
    assert task.ticket.setting is not None
    return task.ticket.setting


def _config_of(policy: Policy, call: CallArguments) -> Config:
    """What the policy was trained with, under the call's own steps."""
    config = policy.trained_with
    steps = call.num_inference_steps
    if steps is None:
        return config
    if steps <= config.sampler.warmup_steps:
        raise ArgumentError(
            f"`num_inference_steps` has to be more than the {config.sampler.warmup_steps} forced steps that the policy "
            f"was trained with, but is {steps}.",
            num_inference_steps=steps,
        )
    sampler = config.sampler.model_copy(update={"num_steps": steps})
    return config.model_copy(update={"sampler": sampler})


def _scale(scale: float, *, guided: bool) -> float:
    """As diffusers understands it: 1 and less are no guidance."""
    if not (scale >= 0 and np.isfinite(scale)):
        raise ArgumentError(f"`guidance_scale` has to be 0 or more but is {scale:g}.", guidance_scale=scale)
    return max(float(scale), 1.0) if guided else 1.0


def _table(pipe: Any, backbone: PipelineBackbone, sampler: SamplerSection, refine: RefineSection) -> SolverTable:
    """The table of a schedule, from those the pipeline remembers."""
    known: dict[Any, SolverTable] = pipe.remembered.tables
    scheduler: Any = pipe.scheduler
    options = json.dumps(dict(scheduler.config), default=str, sort_keys=True)
    key: Any = (type(scheduler), options, sampler, refine)
    if key not in known:
        while len(known) >= _TABLES:
            del known[next(iter(known))]
        known[key] = table_for(backbone, sampler, refine)
    return known[key]


def _preview(pipe: Any, policy: Policy) -> Any | None:
    """The tiny autoencoder through which a policy looks at images, once loaded."""
    section = policy.trained_with.backbone
    if not policy.trained_with.observation.scores_images:
        return None
    known: dict[str, Any] = pipe.remembered.previews
    key = f"{section.kind} {section.preview}"
    if key not in known:
        known[key] = load_preview(section)
    return known[key]
