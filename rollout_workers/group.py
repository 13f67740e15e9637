"""A group of slots in two half ticks: network pass and request to the scorers; then their answer and decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import ACTION_COUNT, Action
from addiffusion.config import RewardSection
from addiffusion.errors import ContractError, ScorerError
from addiffusion.observation.builder import ObservationBuilder
from addiffusion.observation.clip import ImageScores
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.sampling.engine import Engine
from rollout_workers.async_scorer import AsyncScorer
from rollout_workers.episode_builder import Branch, EpisodeBuilder, Stop
from rollout_workers.metrics import Stopwatch
from rollout_workers.ticket_queue import TicketQueue

PolicyFunction: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""phi (S, p) to logits (S, 3) of one group."""
Images: TypeAlias = dict[int, NDArray[np.uint8]]
"""Image (H, W, 3) by slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySnapshot:
    """A policy with the weights of one version."""

    act: PolicyFunction
    weight_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """Images of one pass and the scorers' answer to come."""

    asked: tuple[int, ...]
    """Slots that wait for the policy."""
    previews: Images
    finals: Images
    """Images that are returned, unless the policy goes on."""
    judged_slots: tuple[int, ...]
    """Slots in the order of the replies."""
    reply: Future[ScoreReply] | None
    metrics: Future[ScoreReply] | None
    """Answer to the request of wanted, of the same images."""


class Group:
    """Slots that share a network pass. Warm-up, refine and finish passes cost neither decoder nor scorers."""

    def __init__(
        self,
        engine: Engine,
        *,
        observations: ObservationBuilder,
        scorer: AsyncScorer,
        tickets: TicketQueue,
        reward: RewardSection,
        timed: Stopwatch,
    ) -> None:
        """A group without work as yet.

        Args:
            engine: its slots.
            observations: phi of their decisions.
            scorer: scores of their images.
            tickets: the tickets it shares with the other groups.
            reward: how its episodes are paid.
            timed: seconds of each stage.
        """
        self._engine, self._observations, self._scorer, self._tickets = engine, observations, scorer, tickets
        self._reward, self._timed = reward, timed
        self._builders: dict[int, EpisodeBuilder] = {}
        self._pending: _Pending | None = None
        # Where decisions see the very images that are returned, one decoder pass serves both.
        self._same_images = observations.needs_images and not engine.previews

    @property
    def busy(self) -> bool:
        """Whether any slot holds an episode."""
        return bool(self._builders)

    @property
    def has_room(self) -> bool:
        """Whether any slot holds none."""
        return len(self._builders) < len(self._engine)

    def refill(self) -> None:
        """Give every free slot the next ticket."""
        for slot in self._engine.free():
            builder = self._tickets.next()
            if builder is None:
                return
            condition, negative = self._tickets.condition(builder.ticket), self._tickets.negative
            self._engine.admit(slot, embedding=condition, seed=builder.ticket.seed, negative=negative)
            self._builders[slot] = builder

    def advance(self) -> None:
        """One network pass; then decode what must be seen and ask the scorers, without waiting for them."""
        if self._engine.running:
            with self._timed("network"):
                self._engine.tick()
            for slot, reason in self._engine.failed().items():
                self._fail(slot, reason)
        forced = self._forced_actions()
        self._commit(forced)
        asked, done = self._engine.deciding(), self._engine.done()
        filmed = [slot for slot in forced if self._builders[slot].ticket.keep_frames]
        watched = [slot for slot in asked if self._observations.needs_images or self._builders[slot].ticket.keep_frames]
        previews, finals = self._decode([*watched, *filmed], done)
        self._film(forced, previews)
        judged_slots = (*(asked if self._observations.needs_images else ()), *done)
        shown = {**previews, **finals}
        self._pending = _Pending(
            asked=tuple(asked),
            previews=previews,
            finals={**previews, **finals} if self._same_images else finals,
            judged_slots=judged_slots,
            reply=self._ask(judged_slots, shown),
            metrics=self._ask_metrics(judged_slots, shown),
        )

    def settle(self, policy: PolicySnapshot) -> None:
        """With the scorers' answer, let ``policy`` decide and close the episodes that are done."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        judged = self._judged(pending)
        chosen = self._decide([slot for slot in pending.asked if slot in self._builders], judged, policy)
        self._commit(chosen | self._branches(chosen))
        self._film(chosen, pending.previews)
        for slot in self._engine.done():
            if slot in judged and slot in pending.finals:
                self._complete(slot, judged[slot], pending.finals[slot], policy.weight_version)

    # ---------------------------------------------------------------- before the scorers answer

    def _forced_actions(self) -> dict[int, Action]:
        forced = ((slot, self._forced_action(slot)) for slot in self._engine.deciding())
        return {
            slot: action for slot, action in forced if action is not None and not self._builders[slot].ticket.observed
        }

    def _forced_action(self, slot: int) -> Action | None:
        step, z0_pred = self._engine.info(slot).step, self._engine.z0_pred[slot]
        return self._builders[slot].forced_action(step=step, z0_pred=z0_pred)

    def _decode(self, watched: Sequence[int], done: Sequence[int]) -> tuple[Images, Images]:
        """(previews, returned images) of slots; at fixed batch shapes, so that no image depends on another."""
        if not (watched or done):
            return {}, {}
        with self._timed("decode"):
            if self._same_images:
                images = self._engine.decode()
                return {slot: images[slot] for slot in watched}, {slot: images[slot] for slot in done}
            seen = self._engine.preview() if watched else ()
            return {slot: seen[slot] for slot in watched}, {slot: self._engine.decode_one(slot) for slot in done}

    def _ask(self, slots: Sequence[int], images: Images) -> Future[ScoreReply] | None:
        if not slots:
            return None
        prompts = tuple(self._builders[slot].ticket.prompt.text for slot in slots)
        return self._scorer.submit(ScoreRequest(images=np.stack([images[slot] for slot in slots]), prompts=prompts))

    def _ask_metrics(self, slots: Sequence[int], images: Images) -> Future[ScoreReply] | None:
        """Metrics of all slots if any of them records its stops: tickets of one batch do so alike."""
        wanted = filter(None, (self._builders[slot].ticket.record_stops for slot in slots))
        names = next((one.metrics for one in wanted), ())
        if not names:
            return None
        prompts = tuple(self._builders[slot].ticket.prompt.text for slot in slots)
        shown = np.stack([images[slot] for slot in slots])
        return self._scorer.submit(ScoreRequest(images=shown, prompts=prompts, names=names, embeddings=()))

    # ---------------------------------------------------------------- after it

    def _judged(self, pending: _Pending) -> dict[int, ImageScores]:
        """Scores by slot; a slot whose image has none fails and is left out."""
        if pending.reply is None:
            return {}
        with self._timed("wait"):
            reply = pending.reply.result()
            metrics = None if pending.metrics is None else pending.metrics.result().values
        judged: dict[int, ImageScores] = {}
        for row, (slot, error) in enumerate(zip(pending.judged_slots, reply.errors, strict=True)):
            if error is None:
                judged[slot] = ImageScores.of(reply, row, metrics=None if metrics is None else metrics[row])
            else:
                self._fail(slot, error)
        return judged

    def _decide(
        self, slots: Sequence[int], judged: Mapping[int, ImageScores], policy: PolicySnapshot
    ) -> dict[int, Action]:
        """Ask the policy at the fixed batch shape and draw each slot's action from its episode's own stream."""
        if not slots:
            return {}
        with self._timed("observe"):
            phi = self._observations.rows(self._engine, self._builders, judged, slots)
        with self._timed("policy"):
            logits = policy.act(phi)
            _check_logits(logits, len(phi))
            return {
                slot: self._builders[slot].decide(
                    phi[slot],
                    logits[slot],
                    info=self._engine.info(slot),
                    judged=judged.get(slot),
                    weight_version=policy.weight_version,
                )
                for slot in slots
                if self._can_choose(slot, logits[slot])
            }

    def _can_choose(self, slot: int, logits: NDArray[np.float32]) -> bool:
        finite = bool(np.isfinite(logits).all())
        if not finite:
            self._fail(slot, f"The policy returned {logits.tolist()}, which is no distribution over actions.")
        return finite

    def _branches(self, chosen: Mapping[int, Action]) -> dict[int, Action]:
        """Stop, in the slots of ``chosen`` where it is to be tried first; each is remembered as it stands."""
        tried = [slot for slot in chosen if self._builders[slot].at_branch]
        for slot in tried:
            self._builders[slot].branch = Branch(snapshot=self._engine.snapshot(slot), action=chosen[slot])
        return dict.fromkeys(tried, Action.STOP)

    def _commit(self, actions: Mapping[int, Action]) -> None:
        if actions:
            with self._timed("commit"):
                self._engine.act(actions)

    def _film(self, actions: Mapping[int, Action], images: Images) -> None:
        """Note image and mask of each decision, after its action: only then is there a mask."""
        for slot, action in actions.items():
            builder = self._builders[slot]
            if builder.ticket.keep_frames:
                mask = self._engine.refine_mask(slot) if action is Action.REFINE else None
                builder.images.append(images[slot].copy())
                builder.masks.append(None if mask is None else mask.cpu().numpy().copy())

    def _complete(self, slot: int, final: ImageScores, image: NDArray[np.uint8], weight_version: int) -> None:
        """Close the episode of a slot that is done, whether by its last pass or by the decision just taken.

        Args:
            slot: it is DONE.
            final: scores of the returned image.
            image: (H, W, 3) the returned image.
            weight_version: of the present policy.
        """
        builder = self._builders[slot]
        if builder.branch is not None:
            self._end_branch(slot, builder.branch, final)
            return
        try:
            episode = builder.finish(
                final=final,
                image=image,
                info=self._engine.info(slot),
                phi_width=self._observations.layout.width,
                reward=self._reward,
                weight_version=weight_version,
            )
        except ScorerError as error:
            self._fail(slot, error.message)
            return
        self._tickets.finish(episode)
        self._free(slot)

    def _end_branch(self, slot: int, branch: Branch, final: ImageScores) -> None:
        """Note the end of a tried stop, and go on from the decision it was tried at."""
        builder = self._builders[slot]
        builder.stops.append(Stop(row=len(builder.decisions) - 1, nfe=self._engine.info(slot).nfe, final=final))
        builder.branch = None
        self._engine.put_back(slot, branch.snapshot)
        self._commit({slot: branch.action})

    def _fail(self, slot: int, reason: str) -> None:
        info = self._engine.info(slot)
        self._tickets.fail(self._builders[slot].ticket, reason, step=info.step, nfe=info.nfe)
        self._free(slot)

    def _free(self, slot: int) -> None:
        self._engine.release(slot)
        del self._builders[slot]


def _check_logits(logits: NDArray[np.float32], slots: int) -> None:
    if logits.shape != (slots, ACTION_COUNT):
        raise ContractError(
            f"The policy must return logits of shape {(slots, ACTION_COUNT)}, not {logits.shape}.", shape=logits.shape
        )
