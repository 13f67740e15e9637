"""The model, the policy and the scorers behind a server, and what clients may ask of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.config import Config
from addiffusion.config.sampling import Solver
from addiffusion.configuration.files import load_config
from addiffusion.errors import ConfigError
from addiffusion.observation.builder import make_observation_builder
from addiffusion.pipeline.batch import NOTHING, Decider, ImageBatch
from addiffusion.pipeline.fit import check_widths
from addiffusion.pipeline.policy import Policy
from addiffusion.pipeline.price import PriceDial
from addiffusion.policy_files import read_policy
from addiffusion.records import Ticket
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring, Unscored

NO_POLICY = "none"
"""Instead of a policy: every image is drawn to full length."""
MOST_STEPS = 200
"""Steps that a request may ask for: each number of them is a schedule of its own in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFacts:
    """What clients may ask for. Plain values: they may travel to another process."""

    model: str
    policy: str
    """``none`` without one."""
    image_size: int
    solver: str
    solvers: tuple[str, ...]
    num_steps: int
    least_steps: int
    guidance_scale: float
    guided: bool
    dial: PriceDial
    slots: int
    """Images under way at once in one engine."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """All that draws."""

    name: str
    policy_name: str
    config: Config
    backbone: Backbone
    scoring: Scoring
    act: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None
    """phi (n, p) to logits (n, 3); None without a policy."""
    dial: PriceDial

    def make_batch(self, slots: int) -> ImageBatch:
        """A batch without images, on an engine of its own.

        A pass has as many rows as the images under way need, rounded up to a power of two: one image alone is soon
        done, and its pixels differ by rounding with the company it had.

        Raises:
            ConfigError: the model can't be sampled so.
        """
        config, texts = self.config, PromptTexts(self.backbone, self.scoring)
        observations = make_observation_builder(config, backbone=self.backbone, scoring=self.scoring, tickets=texts)
        engine = Engine(
            self.backbone,
            config.sampler,
            config.refine,
            slots=slots,
            guidance_scale=config.backbone.guidance_scale,
            row_buckets=True,
        )
        act = self.act or _never
        decider = Decider(act=act, observations=observations, scoring=self.scoring, deterministic=True)
        return ImageBatch(engine, decider, texts)

    @cached_property
    def facts(self) -> ServedFacts:
        """What clients may ask for."""
        config = self.config
        return ServedFacts(
            model=self.name,
            policy=self.policy_name,
            image_size=self.backbone.image_size,
            solver=config.sampler.solver,
            solvers=tuple(_solvers(self.backbone, config)),
            num_steps=config.sampler.num_steps,
            least_steps=config.sampler.warmup_steps + 1,
            guidance_scale=config.backbone.guidance_scale,
            guided=config.backbone.guidance_scale > 1,
            dial=self.dial,
            slots=config.rollout.slots,
        )


class PromptTexts:
    """Encoded prompts, from the caches of the models themselves."""

    def __init__(self, backbone: Backbone, scoring: Scoring) -> None:
        self._backbone, self._scoring = backbone, scoring

    def condition(self, ticket: Ticket) -> PromptEmbedding:
        """The ticket's encoded prompt."""
        return self._backbone.encode_prompts([ticket.prompt.text])[0]

    def negative(self, ticket: Ticket) -> PromptEmbedding | None:
        """What guidance leads the ticket's image away from; None is the empty prompt."""
        text = None if ticket.setting is None else ticket.setting.negative_prompt
        return None if text is None else self._backbone.encode_prompts([text])[0]

    def clip(self, ticket: Ticket) -> NDArray[np.float32]:
        """(e,) CLIP embedding of the prompt; empty where nothing looks at images."""
        observed = ticket.observed and self._scoring.clip_width
        return self._scoring.embed_text([ticket.prompt.text])[0] if observed else NOTHING


def load_served_model(policy: str, *, files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> ServedModel:
    """Load what a server draws with.

    Args:
        policy: one that ships, a run, a checkpoint or an exported folder, or ``none``.
        files: of YAML, over the configuration of the policy's training.
        overrides: as on the command line.

    Raises:
        UsageError: policy, configuration or models can't be used.
    """
    if policy == NO_POLICY:
        config = load_config(files, overrides)
        config = config.model_copy(update={"observation": config.observation.model_copy(update={"kind": "latent"})})
        return _served(policy, config, Unscored(), None)
    trained = read_policy(policy)
    own = Policy.of(trained)
    config = load_config([trained.config_file, *files], overrides)
    served = _served(policy, config, _scoring(config), own)
    check_widths(own, served.make_batch(1).layout)
    return served


def _served(name: str, config: Config, scoring: Scoring, policy: Policy | None) -> ServedModel:
    path = config.backbone.path
    return ServedModel(
        name=config.backbone.kind if path is None else Path(str(path)).name,
        policy_name=Path(name).name,
        config=config,
        backbone=load_backbone(config.backbone),
        scoring=scoring,
        act=None if policy is None else policy.actor(),
        dial=PriceDial.of(config, None if policy is None else policy.card),
    )


def _scoring(config: Config) -> Scoring:
    if not config.observation.scores_images:
        return Unscored()
    from addiffusion.scorers.factory import load_suite  # noqa: PLC0415 - its libraries take seconds to import
    from serving.sized_scoring import SizedScoring  # noqa: PLC0415

    return SizedScoring(load_suite(config.scorers), most=min(config.scorers.batch_images, config.rollout.slots))


def _solvers(backbone: Backbone, config: Config) -> Iterator[str]:
    """Those that fit the model, and the leaps of its policy."""
    from addiffusion.backbones.solvers import solver_of  # noqa: PLC0415 - imports diffusers
    from addiffusion.sampling.solver_tables.checks import laid_out  # noqa: PLC0415
    from addiffusion.sampling.solver_tables.leaps import check_leaps  # noqa: PLC0415

    for solver in get_args(Solver):
        try:
            scheduler = solver_of(backbone.scheduler, config.sampler.model_copy(update={"solver": solver}))
            if config.sampler.leap_steps is not None:
                check_leaps(laid_out(scheduler, config.sampler.num_steps))
        except ConfigError:
            continue
        yield solver


def _never(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    raise AssertionError(f"without a policy nobody is asked, but {len(phi)} decisions were")
