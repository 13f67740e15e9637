"""Tickets in, episodes out, in one process: the loop every rollout worker runs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from addiffusion import seeds
from addiffusion.actions import ACTION_COUNT, Action
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.config import Config
from addiffusion.errors import ContractError, ScorerError
from addiffusion.observation.clip import ClipObservation, Judged
from addiffusion.observation.layout import Layout
from addiffusion.policy import choose
from addiffusion.records import Episode, FailedEpisode, ScoreRequest, Ticket
from addiffusion.rollouts import Collected
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring
from rollout_workers.draft import Decision, Draft
from rollout_workers.stopwatch import Stopwatch

PolicyFunction: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Collector:
    """Rolls tickets out. A call leaves nothing behind that the next one could notice."""

    def __init__(self, *, backbone: Backbone, scoring: Scoring, config: Config) -> None:
        self._backbone = backbone
        self._scoring = scoring
        self._config = config
        self._observation = ClipObservation(
            config.observation,
            clip_width=scoring.clip_width,
            scales=config.reward.scales,
            num_steps=config.sampler.num_steps,
        )

    @property
    def layout(self) -> Layout:
        """Layout of phi."""
        return self._observation.layout

    def collect(self, tickets: Sequence[Ticket], act: PolicyFunction, *, weight_version: int) -> Collected:
        """Roll out ``tickets``; each ends up as an episode or as a failed episode.

        Args:
            tickets: distinct by ticket id; worked off in this order.
            act: phi (S, p) to logits (S, 3). Always called with all S slots; rows of slots that decide nothing are 0.
            weight_version: version of the weights behind ``act``.

        Raises:
            ContractError: two tickets share an id, or ``act`` returns another shape.
            ScorerError: the scorers gave no answer at all (a single image without a score only fails its ticket).
        """
        _check_distinct(tickets)
        batch = _Batch(
            self._backbone, self._scoring, self._config, self._observation, act=act, weight_version=weight_version
        )
        return batch.run(tickets)


class _Batch:
    """The tickets of one ``collect`` call on their way through the slots."""

    def __init__(
        self,
        backbone: Backbone,
        scoring: Scoring,
        config: Config,
        observation: ClipObservation,
        *,
        act: PolicyFunction,
        weight_version: int,
    ) -> None:
        self._backbone = backbone
        self._scoring = scoring
        self._config = config
        self._observation = observation
        self._act = act
        self._weight_version = weight_version
        self._slots = config.rollout.slots
        self._engine = Engine(
            backbone,
            config.sampler,
            config.refine,
            slots=self._slots,
            guidance_scale=config.backbone.guidance_scale,
        )
        self._queue: deque[Ticket] = deque()
        self._drafts: dict[int, Draft] = {}
        self._conditions: dict[str, PromptEmbedding] = {}
        self._text_embeddings: dict[str, NDArray[np.float32]] = {}
        self._episodes: list[Episode] = []
        self._failed: list[FailedEpisode] = []
        self._timed = Stopwatch()

    def run(self, tickets: Sequence[Ticket]) -> Collected:
        """Work until every ticket has its outcome."""
        self._accept(tickets)
        while self._refill():
            self._tick()
        return Collected(
            episodes=tuple(sorted(self._episodes, key=lambda episode: episode.ticket.ticket_id)),
            failed=tuple(sorted(self._failed, key=lambda failed: failed.ticket.ticket_id)),
            stage_s=self._timed.stage_s,
        )

    def _tick(self) -> None:
        """One network pass of all slots, and everything that follows from it."""
        with self._timed("network"):
            self._engine.tick()
        self._drop_failed_slots()

        forced = self._forced_actions()
        self._commit(forced)
        asked, done = self._engine.deciding(), self._engine.done()
        filmed = [slot for slot in forced if self._drafts[slot].ticket.keep_frames]
        if not (asked or done or filmed):
            return  # warm-up, refine and finish passes and static sampling cost neither decoder nor scorers

        with self._timed("decode"):
            images = self._engine.decode()
        self._film(forced, images)
        judged = self._judge([*asked, *done], images)
        chosen = self._decide([slot for slot in asked if slot in judged], judged)
        self._commit(chosen)
        self._film(chosen, images)
        self._complete(judged, images)

    def _accept(self, tickets: Sequence[Ticket]) -> None:
        """Queue the tickets that can be paid; encode their prompts, and embed those the policy will see."""
        for ticket in tickets:
            if self._config.reward.preset == "paired" and ticket.forced is None and ticket.reference is None:
                self._failed.append(FailedEpisode(ticket=ticket, reason=_no_reference(ticket)))
            else:
                self._queue.append(ticket)
        prompts = list(dict.fromkeys(ticket.prompt.text for ticket in self._queue))
        self._conditions = dict(zip(prompts, self._backbone.encode_prompts(prompts), strict=True))
        observed = list(dict.fromkeys(ticket.prompt.text for ticket in self._queue if ticket.forced is None))
        if observed:
            self._text_embeddings = dict(zip(observed, self._scoring.embed_text(observed), strict=True))

    def _refill(self) -> bool:
        """Fill every free slot at once; False when no work is left."""
        for slot in self._engine.free():
            if not self._queue:
                break
            ticket = self._queue.popleft()
            self._engine.admit(slot, embedding=self._conditions[ticket.prompt.text], seed=ticket.seed)
            self._drafts[slot] = self._draft(ticket)
        return bool(self._drafts)

    def _draft(self, ticket: Ticket) -> Draft:
        observed = ticket.forced is None
        return Draft(
            ticket=ticket,
            text_embedding=self._text_embeddings[ticket.prompt.text] if observed else np.zeros(0, np.float32),
            draws=seeds.generator(ticket.action_seed, "action") if observed and ticket.explore else None,
        )

    def _forced_actions(self) -> dict[int, Action]:
        forced = ((slot, self._drafts[slot].ticket.forced) for slot in self._engine.deciding())
        return {slot: action for slot, action in forced if action is not None}

    def _judge(self, slots: Sequence[int], images: NDArray[np.uint8]) -> dict[int, Judged]:
        """Scores of the slots' images from one request; a slot whose image has none fails and is left out."""
        if not slots:
            return {}
        prompts = tuple(self._drafts[slot].ticket.prompt.text for slot in slots)
        with self._timed("score"):
            reply = self._scoring.score(ScoreRequest(images=images[list(slots)], prompts=prompts))
        judged: dict[int, Judged] = {}
        for row, (slot, error) in enumerate(zip(slots, reply.errors, strict=True)):
            if error is None:
                judged[slot] = Judged.of(reply, row)
            else:
                self._fail(slot, error)
        return judged

    def _decide(self, slots: Sequence[int], judged: Mapping[int, Judged]) -> dict[int, Action]:
        """Ask the policy at the fixed batch shape and draw each slot's action from its episode's own stream."""
        if not slots:
            return {}
        with self._timed("observe"):
            phi = np.zeros((self._slots, self._observation.layout.width), np.float32)
            for slot in slots:
                phi[slot] = self._observe(slot, judged[slot])
        with self._timed("policy"):
            logits = self._act(phi)
            _check_logits(logits, self._slots)
            return {
                slot: self._take(slot, phi[slot], logits[slot], judged[slot])
                for slot in slots
                if self._can_choose(slot, logits[slot])
            }

    def _observe(self, slot: int, now: Judged) -> NDArray[np.float32]:
        draft = self._drafts[slot]
        return self._observation.row(
            self._engine.info(slot),
            now=now,
            before=draft.last_judged,
            text_embedding=draft.text_embedding,
            c_nfe=draft.ticket.c_nfe,
        )

    def _can_choose(self, slot: int, logits: NDArray[np.float32]) -> bool:
        finite = bool(np.isfinite(logits).all())
        if not finite:
            self._fail(slot, f"The policy returned {logits.tolist()}, which is no distribution over actions.")
        return finite

    def _take(self, slot: int, phi: NDArray[np.float32], logits: NDArray[np.float32], judged: Judged) -> Action:
        draft = self._drafts[slot]
        action, log_prob = choose(logits, draft.draws)
        draft.decisions.append(
            Decision(
                phi=phi.copy(),
                logits=logits.copy(),
                action=action,
                log_prob=log_prob,
                info=self._engine.info(slot),
                judged=judged,
            )
        )
        return action

    def _commit(self, actions: Mapping[int, Action]) -> None:
        if actions:
            with self._timed("commit"):
                self._engine.act(actions)

    def _film(self, actions: Mapping[int, Action], images: NDArray[np.uint8]) -> None:
        """Keep what the acting slots saw, after the action: only then is there a mask."""
        for slot, action in actions.items():
            draft = self._drafts[slot]
            if draft.ticket.keep_frames:
                mask = self._engine.refine_mask(slot) if action is Action.REFINE else None
                draft.images.append(images[slot].copy())
                draft.masks.append(None if mask is None else mask.cpu().numpy().copy())

    def _complete(self, judged: Mapping[int, Judged], images: NDArray[np.uint8]) -> None:
        """Close the episodes of all slots that are done, whether by their last pass or by the decision just taken."""
        for slot in self._engine.done():
            try:
                episode = self._drafts[slot].finish(
                    final=judged[slot],
                    image=images[slot],
                    info=self._engine.info(slot),
                    phi_width=self._observation.layout.width,
                    reward=self._config.reward,
                    weight_version=self._weight_version,
                )
            except ScorerError as error:
                self._fail(slot, error.message)
                continue
            self._episodes.append(episode)
            self._free(slot)

    def _drop_failed_slots(self) -> None:
        for slot, reason in self._engine.failed().items():
            self._fail(slot, reason)

    def _fail(self, slot: int, reason: str) -> None:
        info = self._engine.info(slot)
        facts = {"step": info.step, "nfe": info.nfe}
        self._failed.append(FailedEpisode(ticket=self._drafts[slot].ticket, reason=reason, facts=facts))
        self._free(slot)

    def _free(self, slot: int) -> None:
        self._engine.release(slot)
        del self._drafts[slot]


def _check_distinct(tickets: Sequence[Ticket]) -> None:
    counts = Counter(ticket.ticket_id for ticket in tickets)
    twice = sorted(ticket_id for ticket_id, count in counts.items() if count > 1)
    if twice:
        raise ContractError(f"Tickets {twice} were handed out twice in one batch.", ticket_ids=twice)


def _check_logits(logits: NDArray[np.float32], slots: int) -> None:
    if logits.shape != (slots, ACTION_COUNT):
        raise ContractError(
            f"The policy must return logits of shape {(slots, ACTION_COUNT)}, not {logits.shape}.", shape=logits.shape
        )


def _no_reference(ticket: Ticket) -> str:
    return (
        f"Ticket {ticket.ticket_id} has no reference, but reward.preset=paired pays relative to the full-length image: "
        "roll its (prompt, seed) out with forced=CONTINUE first and attach the result."
    )
