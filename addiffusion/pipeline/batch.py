"""Images under way in the slots of one engine, and the decisions about them, for whoever has images to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion import seeds
from addiffusion.actions import Action
from addiffusion.backbones.base import PromptEmbedding
from addiffusion.errors import ScorerError
from addiffusion.observation.attempts import Attempt
from addiffusion.observation.builder import ObservationBuilder
from addiffusion.observation.clip import ImageScores
from addiffusion.observation.layout import Layout
from addiffusion.observation.preview_scores import permitted
from addiffusion.policy import choose, likeliest, payable
from addiffusion.records import ScoreRequest, Ticket
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLatent:
    """One image before it is decoded."""

    z0: Float[Tensor, "c h w"]
    nfe: int
    network_evals: int
    cost: float
    actions: tuple[Action, ...]
    stopped_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """All that a decision depends on beside the slot itself."""

    act: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """phi (n, p) to logits (n, a), always of as many rows."""
    observations: ObservationBuilder
    scoring: Scoring
    """Scores of previews, where the observation needs them."""
    deterministic: bool
    """Take the likeliest action instead of drawing one."""


@dataclass(slots=True, kw_only=True)
class ImageEpisode:
    """An image in a slot; what ``ObservationBuilder`` asks for."""

    ticket: Ticket
    """Its price, and a forced action, may be changed on the way."""
    text_embedding: NDArray[np.float32]
    draws: torch.Generator | None
    decisions: list[Action] = field(default_factory=list[Action])
    last_judged: ImageScores | None = None
    stopped_at: int | None = None
    given_up: Attempt | None = None

    @property
    def begins(self) -> bool:
        """Whether nothing was decided about its present attempt."""
        return not self.decisions or self.decisions[-1] is Action.REDRAW

    @property
    def refined(self) -> bool:
        """Whether the last decision was a refine."""
        return bool(self.decisions) and self.decisions[-1] is Action.REFINE


@runtime_checkable
class Texts(Protocol):
    """Encoded prompts by ticket."""

    def condition(self, ticket: Ticket) -> PromptEmbedding:
        """The ticket's encoded prompt."""
        ...

    def negative(self, ticket: Ticket) -> PromptEmbedding | None:
        """What guidance leads the ticket's image away from; None is the empty prompt."""
        ...

    def clip(self, ticket: Ticket) -> NDArray[np.float32]:
        """(e,) CLIP embedding of the prompt; empty where no observation needs it."""
        ...


class ImageBatch:
    """Images in the slots of one engine. Each is the same whatever else is drawn, with equal rows."""

    def __init__(self, engine: Engine, decider: Decider, texts: Texts) -> None:
        """Without images.

        Args:
            engine: of empty slots.
            decider: takes the decisions.
            texts: prompts of whatever will be admitted.
        """
        self.engine, self._decider, self._texts = engine, decider, texts
        self.episodes: dict[int, ImageEpisode] = {}
        """By slot."""
        self._previews: dict[int, NDArray[np.uint8]] = {}

    @property
    def layout(self) -> Layout:
        """Slices of phi."""
        return self._decider.observations.layout

    def admit(self, ticket: Ticket, *, noise: Float[Tensor, "c h w"] | None = None) -> int:
        """Begin an image.

        Args:
            ticket: prompt, seed, price and setting.
            noise: of standard deviation 1, for the initial latent; None draws it from the ticket's seed.

        Returns:
            Its slot.

        Raises:
            SlotError: none is free.
            ConfigError: the model can't be sampled with its setting, or no image can be had for its max_cost.
        """
        slot = next(iter(self.engine.free()), -1)
        self.engine.admit(
            slot,
            embedding=self._texts.condition(ticket),
            seed=ticket.seed,
            negative=self._texts.negative(ticket),
            setting=ticket.setting,
            noise=noise,
        )
        drawn = None if self._decider.deterministic else seeds.generator(ticket.seed, "action")
        self.episodes[slot] = ImageEpisode(ticket=ticket, text_embedding=self._texts.clip(ticket), draws=drawn)
        return slot

    def network_pass(self) -> dict[int, str]:
        """One network pass; the slots whose image came to values that are not finite, each with the reason."""
        self.engine.tick()
        self._previews.clear()
        return self.engine.failed()

    def decide(self) -> tuple[dict[int, Action], dict[int, str]]:
        """Decide about every image that waits for it, and begin what was decided.

        Returns:
            The actions by slot; and why those slots have none that could not be decided about.
        """
        slots, episodes = self.engine.deciding(), self.episodes
        forced = {slot: own for slot in slots if (own := episodes[slot].ticket.forced) is not None}
        chosen = {slot: self._payable(slot, action) for slot, action in forced.items()}
        failed: dict[int, str] = {}
        asked, size = [slot for slot in slots if slot not in forced], self.engine.images_per_pass
        for start in range(0, len(asked), size):
            self._choose(asked[start : start + size], chosen, failed)
        for slot, action in chosen.items():
            episodes[slot].decisions.append(action)
            if action is Action.STOP:
                episodes[slot].stopped_at = self.engine.info(slot).step
        self.engine.act(chosen)
        return chosen, failed

    def previews(self, slots: Sequence[int], *, alone: bool = False) -> dict[int, NDArray[np.uint8]]:
        """Image (H, W, 3) of each slot's clean prediction; those that a decision has looked at are not decoded anew.

        Args:
            slots: whose.
            alone: each is decoded by itself.
        """
        missing = [slot for slot in slots if slot not in self._previews]
        if missing:
            self._previews |= zip(missing, self.engine.preview(missing, alone=alone), strict=True)
        return {slot: self._previews[slot] for slot in slots}

    def prompt_tokens(self, slot: int) -> int:
        """Words of the prompt, in tokens of the first text encoder."""
        return int(self._texts.condition(self.episodes[slot].ticket).keep.sum())

    def drawn(self, slot: int) -> DrawnLatent:
        """The image of a slot as it is now: done, or in its clean prediction."""
        episode, info = self.episodes[slot], self.engine.info(slot)
        return DrawnLatent(
            z0=self.engine.z0_pred[slot].clone(),
            nfe=info.nfe,
            network_evals=info.network_evals,
            cost=info.cost,
            actions=tuple(episode.decisions),
            stopped_at=episode.stopped_at,
        )

    def leave(self, slot: int) -> None:
        """Empty a slot, wherever its image is."""
        self.engine.give_up(slot)
        del self.episodes[slot]

    def _payable(self, slot: int, action: Action) -> Action:
        """The action, or a stop where the image can't pay for it."""
        return action if self.engine.allowed(slot)[action] else Action.STOP

    def _choose(self, slots: Sequence[int], chosen: dict[int, Action], failed: dict[int, str]) -> None:
        """Actions of at most as many slots as a pass leads on, by the policy at its fixed batch shape."""
        decider = self._decider
        due = decider.observations.due(self.engine, self.episodes, slots)
        judged = self._judged(due, failed) if due else {}
        slots = [slot for slot in slots if slot not in failed]
        if not slots:
            return
        phi = self.layout.blank(self.engine.images_per_pass)
        phi[: len(slots)] = decider.observations.rows(self.engine, self.episodes, judged, slots)
        answers = decider.act(phi)
        all_finite = np.isfinite(answers).all()
        for slot, logits in zip(slots, answers, strict=False):
            if all_finite or np.isfinite(logits).all():
                seen = decider.observations.redraws_unseen or slot in judged
                can, draws = payable(logits, permitted(self.engine.allowed(slot), seen=seen)), self.episodes[slot].draws
                chosen[slot] = likeliest(can) if draws is None else choose(can, draws)[0]
                self.episodes[slot].last_judged = judged.get(slot)
            else:
                failed[slot] = f"The policy returned {logits.tolist()}, which is no distribution over actions."
        decider.observations.attempts.give_up(self.engine, self.episodes, judged, chosen)

    def _judged(self, slots: Sequence[int], failed: dict[int, str]) -> dict[int, ImageScores]:
        """Scores of the slots' previews, or of an earlier attempt's that was better and goes on."""
        observations = self._decider.observations
        images = self.previews(slots, alone=not observations.scores_every_decision)
        prompts = tuple(self.episodes[slot].ticket.prompt.text for slot in slots)
        try:
            request = ScoreRequest(
                images=np.stack([images[slot] for slot in slots]), prompts=prompts, embeddings=observations.embeddings
            )
            reply = self._decider.scoring.score(request)
        except ScorerError as error:
            failed |= dict.fromkeys(slots, f"The policy's scorers gave no answer: {error.message}")
            return {}
        failed |= {slot: f"It has no score: {why}" for slot, why in zip(slots, reply.errors, strict=True) if why}
        judged = {slot: ImageScores.of(reply, row) for row, slot in enumerate(slots) if slot not in failed}
        judged = observations.attempts.settle(self.engine, self.episodes, judged)
        for slot in judged:
            if self.engine.came_back(slot):
                del self._previews[slot]
        return judged


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedTexts:
    """All texts of a call, encoded."""

    embeddings: Mapping[str, PromptEmbedding]
    """Of prompts, negative ones too."""
    clip_embeddings: Mapping[str, NDArray[np.float32]]
    """(e,) CLIP embeddings of prompts, where the observation needs them."""

    def condition(self, ticket: Ticket) -> PromptEmbedding:
        """The ticket's encoded prompt."""
        return self.embeddings[ticket.prompt.text]

    def negative(self, ticket: Ticket) -> PromptEmbedding | None:
        """The ticket's encoded negative prompt."""
        text = None if ticket.setting is None else ticket.setting.negative_prompt
        return None if text is None else self.embeddings[text]

    def clip(self, ticket: Ticket) -> NDArray[np.float32]:
        """(e,) CLIP embedding of the prompt."""
        return self.clip_embeddings.get(ticket.prompt.text, NOTHING)


NOTHING: NDArray[np.float32] = np.zeros(0, np.float32)
