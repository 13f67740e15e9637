"""The denoising loop under a policy: images wait for slots of an engine, and leave as they are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion import seeds
from addiffusion.actions import Action
from addiffusion.backbones.base import PromptEmbedding
from addiffusion.errors import RolloutError, ScorerError
from addiffusion.observation.builder import ObservationBuilder
from addiffusion.observation.clip import ImageScores
from addiffusion.policy import choose, payable
from addiffusion.records import ScoreRequest, Ticket
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.table import SolverTable
from addiffusion.scorers.base import Scoring
from addiffusion.setting import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """One image to be drawn."""

    ticket: Ticket
    """Prompt, seed and price."""
    noise: Float[Tensor, "c h w"]
    """Of standard deviation 1."""
    guidance_scale: float
    negative: str | None
    """None leads away from the empty prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLatent:
    """One image before it is decoded."""

    z0: Float[Tensor, "c h w"]
    nfe: int
    network_evals: int
    actions: tuple[Action, ...]
    stopped_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """All that a decision depends on beside the slot itself."""

    act: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """phi (S, p) to logits (S, a), always of as many rows."""
    observations: ObservationBuilder
    scoring: Scoring
    """Scores of previews, where the observation needs them."""
    table: SolverTable
    cap: float | None
    """Most NFE of an image; None: any number."""
    deterministic: bool
    """Take the likeliest action instead of drawing one."""


@dataclass(slots=True, kw_only=True)
class _Episode:
    """An image in a slot; what ``ObservationBuilder`` asks for."""

    index: int
    ticket: Ticket
    text_embedding: NDArray[np.float32]
    draws: torch.Generator | None
    decisions: list[Action] = field(default_factory=list[Action])
    last_judged: ImageScores | None = None
    stopped_at: int | None = None

    @property
    def begins(self) -> bool:
        """Whether nothing was decided about its present latent."""
        return not self.decisions or self.decisions[-1] is Action.REDRAW


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedTexts:
    """All texts of a call, encoded; what ``ObservationBuilder`` asks for."""

    embeddings: Mapping[str, PromptEmbedding]
    """Of prompts, negative ones too."""
    clip: Mapping[str, NDArray[np.float32]]
    """(e,) CLIP embeddings of prompts, where the observation needs them."""

    def condition(self, ticket: Ticket) -> PromptEmbedding:
        """The ticket's encoded prompt."""
        return self.embeddings[ticket.prompt.text]


class ImageLoop:
    """Draws a list of images on one engine. Each is the same whatever else is drawn, with equal slots."""

    def __init__(self, engine: Engine, decider: Decider, tasks: Sequence[ImageTask], texts: EncodedTexts) -> None:
        """A loop that has not begun.

        Args:
            engine: of empty slots.
            decider: takes the decisions.
            tasks: the images, in order.
            texts: their prompts, encoded.
        """
        self._engine, self._decider, self._tasks, self._texts = engine, decider, tasks, texts
        self._guided = any(task.guidance_scale > 1 for task in tasks)
        self._waiting = deque(range(len(tasks)))
        self._episodes: dict[int, _Episode] = {}
        self._drawn: dict[int, DrawnLatent] = {}

    @property
    def spent(self) -> int:
        """NFE so far, of all images."""
        under_way = sum(self._engine.info(slot).nfe for slot in self._episodes)
        return under_way + sum(drawn.nfe for drawn in self._drawn.values())

    @property
    def busy(self) -> bool:
        """Whether an image is not done yet."""
        return bool(self._waiting or self._episodes)

    def tick(self) -> None:
        """One network pass over all slots, and the decisions that follow it.

        Raises:
            RolloutError: an image came to values that are not finite, or its preview has no score.
        """
        self._refill()
        self._engine.tick()
        for slot, reason in self._engine.failed().items():
            raise RolloutError(f"Image {self._episodes[slot].index} could not be drawn. {reason}")
        deciding = self._engine.deciding()
        if deciding:
            self._decide(deciding)

    def collect(self) -> None:
        """Take the images that are done out of their slots."""
        for slot in self._engine.done():
            self._leave(slot)

    def end(self) -> None:
        """Take every image as it is now: those under way end in their clean prediction, those that wait in noise."""
        for slot in list(self._episodes):
            self._leave(slot)
        for index in self._waiting:
            noise = self._initial(index)
            self._drawn[index] = DrawnLatent(z0=noise, nfe=0, network_evals=0, actions=(), stopped_at=None)
        self._waiting.clear()

    def drawn(self) -> list[DrawnLatent]:
        """All images, in order."""
        return [self._drawn[index] for index in range(len(self._tasks))]

    # ---------------------------------------------------------------- for callbacks

    def latents(self) -> Float[Tensor, "n c h w"]:
        """Noisy latents of all images: noise of those that wait, the result of those that are done."""
        return self._of_all(self._engine.latents())

    def predictions(self) -> Float[Tensor, "n c h w"]:
        """Clean predictions of all images: noise of those that wait, the result of those that are done."""
        return self._of_all(self._engine.z0_pred)

    def timesteps(self) -> Float[Tensor, " n"]:
        """Timestep of each image's last pass: the first one of those that wait, 0 of those that are done."""
        first = float(self._decider.table.timesteps[0])
        steps = dict.fromkeys(self._waiting, first) | dict.fromkeys(self._drawn, 0.0)
        steps |= {episode.index: self._engine.info(slot).timestep for slot, episode in self._episodes.items()}
        return torch.tensor([steps[index] for index in range(len(self._tasks))])

    def put_latents(self, latents: Float[Tensor, "n c h w"]) -> None:
        """Replace the latents of the images in slots; those that wait or have left their slot stay as they are."""
        self._engine.put_latents({slot: latents[one.index].float() for slot, one in self._episodes.items()})

    def set_guidance_scale(self, guidance_scale: float) -> None:
        """Guide all images by one scale from now on."""
        self._tasks = [replace(task, guidance_scale=guidance_scale) for task in self._tasks]
        for slot in self._episodes:
            self._engine.set_guidance_scale(slot, guidance_scale)

    def _of_all(self, of_slots: Float[Tensor, "slot c h w"]) -> Float[Tensor, "n c h w"]:
        found = {index: self._initial(index).to(of_slots) for index in self._waiting}
        found |= {index: drawn.z0 for index, drawn in self._drawn.items()}
        found |= {episode.index: of_slots[slot] for slot, episode in self._episodes.items()}
        return torch.stack([found[index] for index in range(len(self._tasks))])

    def _initial(self, index: int) -> Float[Tensor, "c h w"]:
        return self._tasks[index].noise * self._decider.table.init_noise_sigma

    # ---------------------------------------------------------------- one tick

    def _refill(self) -> None:
        for slot in self._engine.free():
            if not self._waiting:
                return
            index = self._waiting.popleft()
            task = self._tasks[index]
            ticket = task.ticket
            self._engine.admit(
                slot,
                embedding=self._texts.condition(ticket),
                seed=ticket.seed,
                negative=None if task.negative is None else self._texts.embeddings[task.negative],
                guidance_scale=task.guidance_scale,
                setting=self._setting(task),
                noise=task.noise,
            )
            self._episodes[slot] = _Episode(
                index=index,
                ticket=ticket,
                text_embedding=self._texts.clip.get(ticket.prompt.text, _NOTHING),
                draws=None if self._decider.deterministic else seeds.generator(ticket.seed, "action"),
            )

    def _setting(self, task: ImageTask) -> Setting:
        """The cap in NFE, whoever else is drawn: beside guided images a pass without guidance costs half of one."""
        cap = self._decider.cap
        cost = 0.5 if self._guided and task.guidance_scale <= 1 else 1.0
        return Setting(max_cost=None if cap is None else cap * cost)

    def _decide(self, slots: Sequence[int]) -> None:
        decider = self._decider
        judged = self._judged(slots) if decider.observations.needs_images else {}
        phi = np.zeros((len(self._engine), decider.observations.layout.width), np.float32)
        phi[: len(slots)] = decider.observations.rows(self._engine, self._episodes, judged, slots)
        logits = decider.act(phi)
        self._engine.act(
            {slot: self._action(slot, own, judged.get(slot)) for slot, own in zip(slots, logits, strict=False)}
        )

    def _action(self, slot: int, logits: NDArray[np.float32], judged: ImageScores | None) -> Action:
        episode = self._episodes[slot]
        if not np.isfinite(logits).all():
            raise RolloutError(f"The policy gave image {episode.index} {logits.tolist()}, which is no distribution.")
        action, _ = choose(payable(logits, self._engine.allowed(slot)), episode.draws)
        episode.decisions.append(action)
        episode.last_judged = None if action is Action.REDRAW else judged
        if action is Action.STOP:
            episode.stopped_at = self._engine.info(slot).step
        return action

    def _judged(self, slots: Sequence[int]) -> dict[int, ImageScores]:
        """Scores of the slots' previews."""
        images = self._engine.preview()
        prompts = tuple(self._episodes[slot].ticket.prompt.text for slot in slots)
        try:
            reply = self._decider.scoring.score(
                ScoreRequest(images=np.stack([images[slot] for slot in slots]), prompts=prompts)
            )
        except ScorerError as error:
            raise RolloutError(f"The policy's scorers gave no answer: {error.message}") from error
        for slot, reason in zip(slots, reply.errors, strict=True):
            if reason is not None:
                raise RolloutError(f"Image {self._episodes[slot].index} could not be scored: {reason}")
        return {slot: ImageScores.of(reply, row) for row, slot in enumerate(slots)}

    def _leave(self, slot: int) -> None:
        episode, info = self._episodes.pop(slot), self._engine.info(slot)
        self._drawn[episode.index] = DrawnLatent(
            z0=self._engine.z0_pred[slot].clone(),
            nfe=info.nfe,
            network_evals=info.network_evals,
            actions=tuple(episode.decisions),
            stopped_at=episode.stopped_at,
        )
        if slot in self._engine.done():
            self._engine.release(slot)


_NOTHING: NDArray[np.float32] = np.zeros(0, np.float32)
