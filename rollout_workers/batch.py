"""All slots of a worker: pick, pass, update and outcomes of each tick, and decisions when the scorers have answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action, action_count
from addiffusion.config import Config
from addiffusion.errors import ConfigError, ContractError, ScorerError
from addiffusion.observation.builder import ObservationBuilder
from addiffusion.observation.clip import ImageScores
from addiffusion.observation.preview_scores import permitted
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected, FullQueue
from addiffusion.sampling.engine import Engine
from rollout_workers.async_scorer import AsyncScorer
from rollout_workers.episode_builder import Branch, EpisodeBuilder, Stop
from rollout_workers.metrics import Stopwatch
from rollout_workers.scored_images import Images, Pending, ScoredImages, at_once
from rollout_workers.ticket_queue import TicketQueue

PolicyFunction: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""phi (n, p) to logits (n, a), always of as many rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySnapshot:
    """A policy with the weights of one version."""

    act: PolicyFunction
    weight_version: int


class Batch:
    """Episodes in the slots of one engine; those with the scorers take part in no pass. Nothing depends on a clock."""

    def __init__(
        self,
        engine: Engine,
        *,
        observations: ObservationBuilder,
        scorer: AsyncScorer,
        tickets: TicketQueue,
        config: Config,
        timed: Stopwatch,
    ) -> None:
        """Empty slots.

        Args:
            engine: its slots.
            observations: phi of their decisions.
            scorer: scores of their images.
            tickets: what to roll out.
            config: says how episodes are paid, and what a policy may do.
            timed: seconds of each stage.
        """
        self._engine, self._observations, self.scorer, self._tickets = engine, observations, scorer, tickets
        self._reward, self._timed = config.reward, timed
        self._logit_count = action_count(config.policy.actions)
        # Where slots are left over while others are scored, a pass of half of the rows is worth it.
        self._least_fill = 0.5 if len(engine) > engine.images_per_pass else 1.0
        # Scorers take as long for one image as for a batch. While the next pass is full without them, images wait for
        # company; where each decision is scored, none does.
        self._worth_a_request = 0 if observations.scores_every_decision else config.scorers.batch_images
        self._builders: dict[int, EpisodeBuilder] = {}
        self._pending: deque[Pending] = deque()
        self._full_queue = FullQueue()
        self._images = ScoredImages(
            engine,
            scorer,
            timed,
            every_decision=observations.scores_every_decision,
            embeddings=observations.embeddings,
        )

    def work(
        self, tickets: Sequence[Ticket], policy: PolicySnapshot, *, ticks: int | None = None, more: bool = False
    ) -> Collected:
        """Take tickets in, work, and return what has ended.

        Args:
            tickets: new work.
            policy: decides, in episodes under way as well.
            ticks: network passes; None works to the end.
            more: other tickets are on their way: work ends after the tick that leaves a slot without one.

        Raises:
            ContractError: a ticket is open already, or the policy returns another shape.
            ScorerError: the scorers gave no answer at all.
        """
        self._tickets.add(tickets)
        self._full_queue = FullQueue()
        done_count = 0
        while (ticks is None or done_count < ticks) and self._tick(policy):
            done_count += 1
            if more and not self._tickets.waiting and len(self._builders) < len(self._engine):
                break
        return self._tickets.outcome(self._timed.take(), self._full_queue)

    @property
    def open_tickets(self) -> tuple[Ticket, ...]:
        """Tickets whose outcome has not been returned."""
        return self._tickets.open_tickets

    def _tick(self, policy: PolicySnapshot) -> bool:
        """Settle what the next pass needs, run it, and look at its outcomes; False when no work is left."""
        started_s = time.perf_counter()
        self._refill()
        while self._pending and self._engine.fill < (1 if len(self._pending) > 1 else self._least_fill):
            self._settle(self._pending.popleft(), policy)
            self._refill()
        rows, is_full = self._engine.rows_wanted, self._tickets.waiting
        if self._engine.running:
            with self._timed("network"):
                self._engine.tick()
            for slot, reason in self._engine.failed().items():
                self._fail(slot, reason)
        self._look(policy)
        if is_full:
            self._full_queue += FullQueue(seconds=time.perf_counter() - started_s, network_evals=rows)
        return bool(self._builders) or self._tickets.waiting

    def _refill(self) -> None:
        """Give every free slot the next ticket."""
        for slot in self._engine.free():
            builder = self._tickets.next()
            if builder is None:
                return
            ticket = builder.ticket
            try:
                self._engine.admit(
                    slot,
                    embedding=self._tickets.condition(ticket),
                    seed=ticket.seed,
                    negative=self._tickets.negative(ticket),
                    setting=self._tickets.setting(ticket),
                )
            except ConfigError as error:  # another setting of the same model is fine
                self._tickets.fail(ticket, error.message, final=True)
            else:
                self._builders[slot] = builder

    def _look(self, policy: PolicySnapshot) -> None:
        """Decide what needs no scores; decode what must be seen and ask the scorers, without waiting for them."""
        waiting = {slot for pending in self._pending for slot in pending.slots}
        forced = self._forced_actions(waiting)
        self._commit(forced)
        asked = [slot for slot in self._engine.deciding() if slot not in waiting]
        done = [slot for slot in self._engine.done() if slot not in waiting]
        due = self._observations.due(self._engine, self._builders, asked)
        unseen = [slot for slot in asked if slot not in due]
        filmed = [slot for slot in (*unseen, *forced) if self._builders[slot].ticket.keep_frames]
        films, _ = self._images.decode(filmed, ())
        self._film(forced, films)
        self._settle(at_once(unseen, films), policy)
        if (due or done) and not (self._engine.fill >= 1 and len(due) + len(done) < self._worth_a_request):
            tickets = {slot: self._builders[slot].ticket for slot in (*due, *done)}
            self._pending.append(self._images.ask(due, done, self._images.decode(due, done), tickets))

    def _settle(self, pending: Pending, policy: PolicySnapshot) -> None:
        """With the scorers' answer, let ``policy`` decide and close the episodes that are done."""
        judged, attempts = self._judged(pending), self._observations.attempts
        asked = [slot for slot in pending.asked if slot in self._builders]
        seen = {slot: judged[slot] for slot in asked if slot in judged}
        judged |= attempts.settle(self._engine, self._builders, seen)
        back = [slot for slot in asked if self._engine.came_back(slot)]
        shown = [slot for slot in back if slot in pending.finals or self._builders[slot].ticket.keep_frames]
        pending = self._images.again(pending, shown)
        chosen = self._decide(asked, judged, policy)
        attempts.give_up(self._engine, self._builders, judged, chosen)
        self._commit(chosen | self._branches(chosen))
        self._film(chosen, pending.previews)
        for slot in self._engine.done():
            if slot in judged and slot in pending.finals:
                self._complete(slot, judged[slot], pending.finals[slot], policy.weight_version)

    # ---------------------------------------------------------------- before the scorers answer

    def _forced_actions(self, waiting: Collection[int]) -> dict[int, Action]:
        forced = ((slot, self._forced_action(slot)) for slot in self._engine.deciding() if slot not in waiting)
        return {
            slot: action for slot, action in forced if action is not None and not self._builders[slot].ticket.observed
        }

    def _forced_action(self, slot: int) -> Action | None:
        step, z0_pred = self._engine.info(slot).step, self._engine.z0_pred[slot]
        action = self._builders[slot].forced_action(step=step, z0_pred=z0_pred)
        return action if action is None or self._engine.allowed(slot)[action] else Action.CONTINUE

    # ---------------------------------------------------------------- after it

    def _judged(self, pending: Pending) -> dict[int, ImageScores]:
        """Scores by slot; a slot whose image has none fails and is left out."""
        judged, failed = self._images.scores_of(pending)
        for slot, error in failed.items():
            self._fail(slot, error)
        return judged

    def _decide(
        self, slots: Sequence[int], judged: Mapping[int, ImageScores], policy: PolicySnapshot
    ) -> dict[int, Action]:
        """Ask the policy at the fixed batch shape and draw each slot's action from its episode's own stream."""
        size, unseen_too = self._engine.images_per_pass, self._observations.redraws_unseen
        chosen: dict[int, Action] = {}
        for start in range(0, len(slots), size):
            some = slots[start : start + size]
            phi = self._observations.layout.blank(size)
            with self._timed("observe"):
                phi[: len(some)] = self._observations.rows(self._engine, self._builders, judged, some)
            with self._timed("policy"):
                logits = policy.act(phi)
                _check_logits(logits, (size, self._logit_count))
                for slot, seen, answer in zip(some, phi, logits, strict=False):
                    if self._can_choose(slot, answer):
                        chosen[slot] = self._builders[slot].decide(
                            seen,
                            answer,
                            info=self._engine.info(slot),
                            judged=judged.get(slot),
                            allowed=permitted(self._engine.allowed(slot), seen=unseen_too or slot in judged),
                            weight_version=policy.weight_version,
                        )
        return chosen

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


def _check_logits(logits: NDArray[np.float32], shape: tuple[int, int]) -> None:
    if logits.shape != shape:
        raise ContractError(f"The policy must return logits of shape {shape}, not {logits.shape}.", shape=logits.shape)
