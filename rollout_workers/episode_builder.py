"""The episode of a slot, from its ticket to the finished record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import FIRST_ACTIONS, Action
from addiffusion.config import RewardSection
from addiffusion.observation.attempts import Attempt
from addiffusion.observation.clip import ImageScores
from addiffusion.policy import choose, payable
from addiffusion.records import TERM_NAMES, Episode, Frames, StopRecords, Ticket
from addiffusion.reward import compute_terms
from addiffusion.sampling.latents import SlotSnapshot
from addiffusion.sampling.slot import SlotInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision as it was taken."""

    phi: NDArray[np.float32]
    """(p,)."""
    logits: NDArray[np.float32]
    """(a,)."""
    action: Action
    log_prob: float
    weight_version: int
    """Of the weights that took it."""
    info: SlotInfo
    """Where the slot stood before the action."""
    judged: ImageScores | None
    """Scores of the prediction the decision saw; None where the policy decides without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A stop under branch at the last decision: the slot before it, and the action to go on with."""

    snapshot: SlotSnapshot
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End of a tried stop."""

    row: int
    """Index of the decision it was tried at."""
    nfe: int
    """NFE of the whole episode had it ended so."""
    final: ImageScores


@dataclass(slots=True, kw_only=True)
class EpisodeBuilder:
    """Decisions, images and tried stops of an episode under way. Everything random in it comes from the ticket."""

    ticket: Ticket
    text_embedding: NDArray[np.float32]
    """(e,) CLIP embedding of the prompt; empty where the policy needs none."""
    draws: torch.Generator | None
    """The episode's own stream of action draws; None takes the likeliest action."""
    decisions: list[Decision] = field(default_factory=list)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    """(H, W, 3) predictions kept for a film strip."""
    masks: list[NDArray[np.float32] | None] = field(default_factory=list)
    """(h, w) refine masks beside them, in latent pixels."""
    stops: list[Stop] = field(default_factory=list)
    branch: Branch | None = None
    given_up: Attempt | None = None
    started_s: float = field(default_factory=time.perf_counter)
    z0_before: Float[Tensor, "c h w"] | None = None
    """Clean prediction of the decision before, for a rule that compares with it."""

    @property
    def last_judged(self) -> ImageScores | None:
        """Scores at the decision before; None where it had none."""
        return self.decisions[-1].judged if self.decisions else None

    @property
    def begins(self) -> bool:
        """Whether nothing was decided about its present attempt."""
        return not self.decisions or self.decisions[-1].action is Action.REDRAW

    @property
    def refined(self) -> bool:
        """Whether the last decision was a refine."""
        return bool(self.decisions) and self.decisions[-1].action is Action.REFINE

    @property
    def at_branch(self) -> bool:
        """Whether stop is to be tried at the last decision before what was chosen there."""
        wanted = self.ticket.record_stops
        return wanted is not None and (len(self.decisions) - 1) % wanted.stride == 0

    def forced_action(self, *, step: int, z0_pred: Float[Tensor, "c h w"]) -> Action | None:
        """Action that the ticket prescribes at a decision, where it can be taken; None asks the policy.

        Args:
            step: schedule index of the decision.
            z0_pred: clean prediction at the decision.
        """
        ticket = self.ticket
        if ticket.script is not None:
            return ticket.script[step] if step < len(ticket.script) else Action.CONTINUE
        if ticket.forced is not Action.CONTINUE or ticket.stop_rule is None:
            return ticket.forced
        at_step = ticket.stop_rule.at_step
        if at_step is not None:
            if step >= at_step:
                return Action.STOP
            if ticket.stop_rule.refine_last and step == at_step - 1:
                return Action.REFINE
        below = ticket.stop_rule.change_below
        if below is not None and self._change(z0_pred) < below:
            return Action.STOP
        return Action.CONTINUE

    def _change(self, z0_pred: Float[Tensor, "c h w"]) -> float:
        """|z0 - z0 before| / |z0 before| of this decision, which becomes the one before; infinite at the first."""
        before, self.z0_before = self.z0_before, z0_pred.clone()
        if before is None:
            return float("inf")
        return float((self.z0_before - before).norm() / before.norm().clamp_min(1e-12))

    def decide(
        self,
        phi: NDArray[np.float32],
        logits: NDArray[np.float32],
        *,
        info: SlotInfo,
        judged: ImageScores | None,
        allowed: Sequence[bool],
        weight_version: int,
    ) -> Action:
        """Choose the action of a decision, and note it; where the ticket forces one, the policy's answer is void.

        Args:
            phi: (p,) the observation.
            logits: (a,) the policy's answer, finite.
            info: where the slot stands.
            judged: scores of the prediction; None where the policy decides without them.
            allowed: by ``Action`` whether it can be taken and paid; the probability of any other one is 0.
            weight_version: version of the policy weights.
        """
        logits = payable(logits, allowed)
        if self.ticket.forced is None:
            action, log_prob = choose(logits, self.draws)
        else:
            action, log_prob, logits = self.ticket.forced, 0.0, np.zeros_like(logits)
        self.decisions.append(
            Decision(
                phi=phi.copy(),
                logits=logits.copy(),
                action=action,
                log_prob=log_prob,
                weight_version=weight_version,
                info=info,
                judged=judged,
            )
        )
        return action

    def finish(
        self,
        *,
        final: ImageScores,
        image: NDArray[np.uint8],
        info: SlotInfo,
        phi_width: int,
        reward: RewardSection,
        weight_version: int,
    ) -> Episode:
        """The finished record.

        Args:
            final: scores of the returned image.
            image: (H, W, 3) the returned image.
            info: the slot's counts at the end.
            phi_width: width of phi, also where there is no decision.
            reward: how the episode is paid.
            weight_version: version of the present policy weights.

        Raises:
            ScorerError: a score the reward needs is not a number.
        """
        actions = np.array([decision.action for decision in self.decisions], np.int64)
        versions = np.array([decision.weight_version for decision in self.decisions], np.int64)
        judged = [*(_like(final, decision.judged) for decision in self.decisions), final]
        return Episode(
            ticket=self.ticket,
            phi=_rows([decision.phi for decision in self.decisions], phi_width),
            actions=actions,
            log_prob=np.array([decision.log_prob for decision in self.decisions], np.float32),
            logits=_rows([decision.logits for decision in self.decisions], len(FIRST_ACTIONS)),
            steps=np.array([decision.info.step for decision in self.decisions], np.int64),
            nfe_spent=self._nfe_spent(info.nfe),
            scores=np.stack([one.scores for one in judged]),
            terms=self._terms(reward, judged, actions, info),
            final_dino=final.dino_embedding,
            image=image.copy() if self.ticket.keep_image else _NO_IMAGE,
            nfe=info.nfe,
            network_evals=info.network_evals,
            cost=info.cost,
            weight_version=int(versions[-1]) if len(versions) else weight_version,
            carried_versions=versions if len(set(versions.tolist())) > 1 else None,
            seconds=time.perf_counter() - self.started_s,
            frames=self._frames(image) if self.ticket.keep_frames else None,
            stop_records=self._stop_records(judged) if self.ticket.record_stops is not None else None,
        )

    def _terms(
        self, reward: RewardSection, judged: Sequence[ImageScores], actions: NDArray[np.int64], info: SlotInfo
    ) -> NDArray[np.float32]:
        """(d, 4) reward terms; zeros where stops are recorded.

        Args:
            reward: how the episode is paid.
            judged: scores at each decision, then of the returned image.
            actions: (d,).
            info: the slot's counts at the end.
        """
        if self.ticket.record_stops is not None:
            return np.zeros((len(actions), len(TERM_NAMES)), np.float32)
        return compute_terms(
            reward,
            scores=np.stack([one.scores for one in judged]),
            dino=np.stack([one.dino_embedding for one in judged]),
            cost_spent=np.diff(np.array([*(decision.info.cost for decision in self.decisions), info.cost])),
            refined=actions == Action.REFINE,
            c_nfe=self.ticket.c_nfe,
            reference=self.ticket.reference,
            attention_entropy=self._entropies(info),
        )

    def _entropies(self, info: SlotInfo) -> NDArray[np.float32]:
        """(d,) of the attention each decision left behind: a refine's map is known once it is taken."""
        after = [decision.info for decision in self.decisions[1:]]
        return np.array([one.attention_entropy for one in [*after, info][: len(self.decisions)]], np.float32)

    def _stop_records(self, judged: Sequence[ImageScores]) -> StopRecords:
        stopped = [stop.final for stop in self.stops]
        return StopRecords(
            dino=np.stack([one.dino_embedding for one in judged]),
            metrics=np.stack([one.metrics for one in judged]),
            stop_rows=np.array([stop.row for stop in self.stops], np.int64),
            stop_nfe=np.array([stop.nfe for stop in self.stops], np.int64),
            stop_scores=_rows([one.scores for one in stopped], len(judged[-1].scores)),
            stop_dino=_rows([one.dino_embedding for one in stopped], len(judged[-1].dino_embedding)),
            stop_metrics=_rows([one.metrics for one in stopped], len(judged[-1].metrics)),
        )

    def _nfe_spent(self, nfe: int) -> NDArray[np.int64]:
        """(d,) passes between each decision and the next one, or the end."""
        counts = [decision.info.nfe for decision in self.decisions]
        return np.diff(np.array([*counts, nfe], np.int64))

    def _frames(self, image: NDArray[np.uint8]) -> Frames:
        return Frames(images=np.stack([*self.images, image]), masks=tuple(self.masks))


_NO_IMAGE: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)


def _like(final: ImageScores, judged: ImageScores | None) -> ImageScores:
    """Scores as wide as the final ones; what nobody asked for is not a number, never a zero."""
    return ImageScores(
        scores=np.full_like(final.scores, np.nan) if judged is None else judged.scores,
        clip_embedding=_as_wide(final.clip_embedding, None if judged is None else judged.clip_embedding),
        dino_embedding=_as_wide(final.dino_embedding, None if judged is None else judged.dino_embedding),
        metrics=_as_wide(final.metrics, None if judged is None else judged.metrics),
    )


def _as_wide(final: NDArray[np.float32], found: NDArray[np.float32] | None) -> NDArray[np.float32]:
    return np.full_like(final, np.nan) if found is None or not len(found) else found


def _rows(rows: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """(d, width), also for d = 0."""
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)
