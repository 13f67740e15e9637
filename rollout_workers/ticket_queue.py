"""Tickets of a worker: those that wait, those under way, and their outcomes."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion import seeds
from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.config import Config
from addiffusion.errors import ContractError
from addiffusion.records import Episode, FailedEpisode, Ticket, TicketId
from addiffusion.reward import needs_reference
from addiffusion.rollouts import Collected, FullQueue
from addiffusion.scorers.base import Scoring
from addiffusion.setting import Setting
from rollout_workers.episode_builder import EpisodeBuilder


class TicketQueue:
    """Tickets in their order, and what came of them: each ends as an episode or as a failed episode."""

    def __init__(self, *, backbone: Backbone, scoring: Scoring, config: Config) -> None:
        self._backbone, self._scoring, self._config = backbone, scoring, config
        self._paired = needs_reference(config.reward)
        self._waiting: deque[Ticket] = deque()
        self._episodes: list[Episode] = []
        self._failed: list[FailedEpisode] = []
        self._open: dict[TicketId, Ticket] = {}
        self._conditions: dict[str, PromptEmbedding] = {}
        self._text_embeddings: dict[str, NDArray[np.float32]] = {}
        self._negatives: dict[str, PromptEmbedding | None] = {"": None}

    @property
    def open_tickets(self) -> tuple[Ticket, ...]:
        """Tickets whose outcome has not been taken."""
        return tuple(self._open.values())

    @property
    def waiting(self) -> bool:
        """Whether there is a ticket that ``next`` has not handed out."""
        return bool(self._waiting)

    def add(self, tickets: Sequence[Ticket]) -> None:
        """Queue the tickets that can be paid; encode their prompts, and embed those the policy will see.

        Raises:
            ContractError: a ticket is open already.
        """
        _check_distinct([*self._open.values(), *tickets])
        self._open |= {ticket.ticket_id: ticket for ticket in tickets}
        for ticket in tickets:
            reason = self._refusal(ticket)
            if reason is None:
                self._waiting.append(ticket)
            else:
                self.fail(ticket, reason)
        prompts = _new(self._conditions, (ticket.prompt.text for ticket in self._waiting))
        if prompts:
            self._conditions |= zip(prompts, self._backbone.encode_prompts(prompts), strict=True)
        observed = _new(self._text_embeddings, (t.prompt.text for t in self._waiting if t.observed))
        if observed and self._config.observation.kind == "clip":
            self._text_embeddings |= zip(observed, self._scoring.embed_text(observed), strict=True)

    def next(self) -> EpisodeBuilder | None:
        """Episode of the next ticket; None when all have been handed out."""
        if not self._waiting:
            return None
        ticket = self._waiting.popleft()
        return EpisodeBuilder(
            ticket=ticket,
            text_embedding=self._text_embeddings.get(ticket.prompt.text, _NOTHING),
            draws=seeds.generator(ticket.action_seed, "action") if ticket.forced is None and ticket.explore else None,
        )

    def condition(self, ticket: Ticket) -> PromptEmbedding:
        """The ticket's encoded prompt."""
        return self._conditions[ticket.prompt.text]

    def negative(self, ticket: Ticket) -> PromptEmbedding | None:
        """What guidance leads the ticket's image away from; None is the empty prompt."""
        own = None if ticket.setting is None else ticket.setting.negative_prompt
        text = self._config.backbone.negative_prompt if own is None else own
        if text not in self._negatives:
            self._negatives[text] = self._backbone.encode_prompts([text])[0]
        return self._negatives[text]

    def setting(self, ticket: Ticket) -> Setting | None:
        """What the ticket's image is drawn with; a forced one knows no cap."""
        return ticket.setting if ticket.forced is None else replace(ticket.setting or Setting(), max_cost=math.inf)

    def finish(self, episode: Episode) -> None:
        """Take an episode in."""
        self._episodes.append(episode)

    def fail(self, ticket: Ticket, reason: str, *, final: bool = False, **facts: Any) -> None:
        """Note why a ticket has no episode; ``final``: it never will."""
        self._failed.append(FailedEpisode(ticket=ticket, reason=reason, facts=facts, final=final))

    def outcome(self, stage_s: dict[str, float], full_queue: FullQueue) -> Collected:
        """Everything that has ended since the last call, in the order of ticket ids."""
        collected = Collected(
            episodes=tuple(sorted(self._episodes, key=lambda episode: episode.ticket.ticket_id)),
            failed=tuple(sorted(self._failed, key=lambda failed: failed.ticket.ticket_id)),
            stage_s=stage_s,
            full_queue=full_queue,
        )
        for ended in (*self._episodes, *self._failed):
            del self._open[ended.ticket.ticket_id]
        self._episodes, self._failed = [], []
        wanted = {ticket.prompt.text for ticket in self._open.values()}
        for known in (self._conditions, self._text_embeddings):
            for text in known.keys() - wanted:
                del known[text]
        return collected

    def _refusal(self, ticket: Ticket) -> str | None:
        if not ticket.prompt.text.strip():
            return f"The prompt of ticket {ticket.ticket_id} is empty: give it words."
        if ticket.record_stops is not None and ticket.forced is not Action.CONTINUE:
            return f"Ticket {ticket.ticket_id} asks for stop records, which need forced=CONTINUE."
        if self._paired and ticket.forced is None and ticket.reference is None:
            return (
                f"Ticket {ticket.ticket_id} has no reference, but reward.preset=paired pays relative to the "
                "full-length image: roll its (prompt, seed) out with forced=CONTINUE first and attach the result."
            )
        return None


_NOTHING: NDArray[np.float32] = np.zeros(0, np.float32)


def _new(known: Mapping[str, object], texts: Iterable[str]) -> list[str]:
    """The texts that are not known yet, each once, in their order."""
    return [text for text in dict.fromkeys(texts) if text not in known]


def _check_distinct(tickets: Sequence[Ticket]) -> None:
    counts = Counter(ticket.ticket_id for ticket in tickets)
    twice = sorted(ticket_id for ticket_id, count in counts.items() if count > 1)
    if twice:
        raise ContractError(f"Tickets {twice} were handed out twice in one batch.", ticket_ids=twice)
