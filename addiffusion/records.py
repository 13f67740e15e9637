"""The records that cross a border between components. Plain numpy: they travel through Ray as they are.

Shapes: ``n`` images of one request, ``d`` decisions of one episode, ``k`` score names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NewType, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.setting import Setting
from addiffusion.stop_rules import RecordAllStops, StopRule

SCORE_NAMES = ("clip", "aesthetic", "image_reward")
"""Scores of one image against its prompt, in the order of every score column."""
METRIC_NAMES = ("scene_soft", "scene_strict")
"""Scores that only judge (final images of the embedded world): never part of a reward."""
EMBEDDING_NAMES = ("clip", "dino")
"""Embeddings a scoring request may ask for."""
TERM_NAMES = ("quality", "efficiency", "terminal", "refine")
"""Reward terms, in the order of ``Episode.terms``."""

PromptId = NewType("PromptId", int)
"""A prompt's place in its set; of a server, the ticket's."""
TicketId = NewType("TicketId", int)
"""An episode's number, of those that are handed out together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of a prompt set."""

    prompt_id: PromptId
    text: str
    tier: int
    """1 to 3 by difficulty; 0 for prompts of no set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Scores of the full-length image of a (prompt, seed): what ``paired`` rewards are relative to."""

    scores: NDArray[np.float32]
    """(k,) in the order of SCORE_NAMES."""
    dino_embedding: NDArray[np.float32]
    """(f,)."""


class TicketOptions(TypedDict, total=False):
    """Fields of a ticket that each of its constructors takes."""

    reference: Reference | None
    setting: Setting | None
    keep_frames: bool
    keep_image: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One episode to be rolled out. The episode is a pure function of this record and the policy weights.

    Made of its required fields alone a ticket draws its actions from the policy's distribution; the constructors make
    those that draw nothing.
    """

    ticket_id: TicketId
    """Unique in a run; results are ordered by it, whoever rolled them out."""
    prompt: Prompt
    seed: int
    """Root of the image's own randomness: initial latent and refine noise."""
    action_seed: int
    """Root of the action draws."""
    c_nfe: float
    """Price of one NFE in this episode."""
    setting: Setting | None = None
    """What it is drawn with; what that leaves open, or None, is the run's. Forced episodes know no max_cost."""
    forced: Action | None = None
    """Take this action at every decision instead of asking the policy (references, static baselines). Such an
    episode is neither observed nor scored on its way: it has no decisions, and only the returned image has scores;
    unless ``record_stops`` asks for them."""
    stop_rule: StopRule | None = None
    """With ``forced=CONTINUE``: where this control stops instead."""
    script: tuple[Action, ...] | None = None
    """With ``forced=CONTINUE``: the action at each schedule index, where it can be taken; continue everywhere else."""
    explore: bool = True
    """Draw actions from the policy's distribution; False takes the most likely one."""
    reference: Reference | None = None
    """Scores of the full-length image, where the reward needs them: workers hold no state of their own."""
    record_stops: RecordAllStops | None = None
    """Observe and score every decision of an episode forced to continue, and try stop on the way."""
    keep_frames: bool = False
    """Keep every decision's image and mask (film strips); costs memory."""
    keep_image: bool = True
    """Bring the returned image along; False where it is neither recorded, shown nor measured, only scored."""

    @classmethod
    def greedy(
        cls, ticket_id: TicketId, prompt: Prompt, *, seed: int, c_nfe: float, **options: Unpack[TicketOptions]
    ) -> Self:
        """A ticket for the policy's likeliest actions.

        Args:
            ticket_id: the field.
            prompt: the field.
            seed: the field.
            c_nfe: the field.
            **options: other fields.
        """
        return cls(ticket_id=ticket_id, prompt=prompt, seed=seed, action_seed=0, c_nfe=c_nfe, explore=False, **options)

    @classmethod
    def full_length(
        cls,
        ticket_id: TicketId,
        prompt: Prompt,
        *,
        seed: int,
        c_nfe: float,
        stop_rule: StopRule | None = None,
        **options: Unpack[TicketOptions],
    ) -> Self:
        """A ticket for the whole schedule, or up to where ``stop_rule`` stops; no policy is asked.

        Args:
            ticket_id: the field.
            prompt: the field.
            seed: the field.
            c_nfe: the field.
            stop_rule: the field.
            **options: other fields.
        """
        ticket = cls.greedy(ticket_id, prompt, seed=seed, c_nfe=c_nfe, **options)
        return replace(ticket, forced=Action.CONTINUE, stop_rule=stop_rule)

    @classmethod
    def recording_stops(
        cls,
        record_stops: RecordAllStops,
        ticket_id: TicketId,
        prompt: Prompt,
        *,
        seed: int,
        c_nfe: float,
        **options: Unpack[TicketOptions],
    ) -> Self:
        """A full-length ticket whose decisions are observed, with stop tried on the way.

        Args:
            record_stops: the field.
            ticket_id: the field.
            prompt: the field.
            seed: the field.
            c_nfe: the field.
            **options: other fields.
        """
        return replace(cls.full_length(ticket_id, prompt, seed=seed, c_nfe=c_nfe, **options), record_stops=record_stops)

    @property
    def observed(self) -> bool:
        """Whether its decisions are observed: the policy takes them, or a bank wants to know them."""
        return self.forced is None or self.record_stops is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Images of one caller, to be scored against their prompts."""

    images: NDArray[np.uint8]
    """(n, H, W, 3)."""
    prompts: tuple[str, ...]
    names: tuple[str, ...] = SCORE_NAMES
    """Which score columns to compute."""
    embeddings: tuple[str, ...] = EMBEDDING_NAMES
    """Which embeddings to compute; one that nobody asks for costs nothing and is (n, 0) in the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReply:
    """Scores in the order of the request's images."""

    names: tuple[str, ...]
    values: NDArray[np.float32]
    """(n, k). A row whose ``errors`` entry is set holds NaN and must not be used."""
    clip_embedding: NDArray[np.float32]
    """(n, e) L2-normalised CLIP image embeddings; (n, 0) if not asked for."""
    dino_embedding: NDArray[np.float32]
    """(n, f) L2-normalised DINO features; (n, 0) if not asked for."""
    errors: tuple[str | None, ...]
    """Per image: None, or one sentence on why it has no score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """What a film strip needs: one entry per decision, then the returned image.

    A forced episode has no decisions; its entries are the points at which the policy would have been asked.
    """

    images: NDArray[np.uint8]
    """(d + 1, H, W, 3)."""
    masks: tuple[NDArray[np.float32] | None, ...]
    """(d,) the refine mask (h, w) in latent pixels where the decision was refine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRecords:
    """Outcome of every stop that was tried on the way of an episode. ``m`` metrics, ``s`` tried stops."""

    dino: NDArray[np.float32]
    """(d + 1, f) DINO features at each decision, then of the returned image."""
    metrics: NDArray[np.float32]
    """(d + 1, m) likewise; NaN where a prompt is outside what the metric understands."""
    stop_rows: NDArray[np.int64]
    """(s,) decisions at which stop was tried."""
    stop_nfe: NDArray[np.int64]
    """(s,) NFE of the whole episode had it stopped there."""
    stop_scores: NDArray[np.float32]
    """(s, k) of the image it would have returned."""
    stop_dino: NDArray[np.float32]
    """(s, f)."""
    stop_metrics: NDArray[np.float32]
    """(s, m)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished image with all its decisions. Forced warm-up is in ``nfe`` but has no decision."""

    ticket: Ticket
    phi: NDArray[np.float32]
    """(d, p) observation at each decision."""
    actions: NDArray[np.int64]
    """(d,)."""
    log_prob: NDArray[np.float32]
    """(d,) behaviour log-probability of the action taken."""
    logits: NDArray[np.float32]
    """(d, a) of FIRST_ACTIONS or of all; FORBIDDEN_LOGIT of actions that could not be taken or paid."""
    steps: NDArray[np.int64]
    """(d,) schedule index i of each decision; it falls where a redraw has begun the image again."""
    nfe_spent: NDArray[np.int64]
    """(d,) passes that followed each decision up to the next one or the end."""
    scores: NDArray[np.float32]
    """(d + 1, k) at each decision, then of the returned image, in the order of SCORE_NAMES."""
    terms: NDArray[np.float32]
    """(d, 4) weighted reward terms in the order of TERM_NAMES; their sum is the reward."""
    final_dino: NDArray[np.float32]
    """(f,) DINO features of the returned image."""
    image: NDArray[np.uint8]
    """(H, W, 3) the returned image; (0, 0, 3) where the ticket does not ask for it."""
    nfe: int
    network_evals: int
    weight_version: int
    """Version of the policy weights that took the last decision."""
    seconds: float
    """Wall clock from admission to the final score; informative only, never trained on."""
    frames: Frames | None = None
    stop_records: StopRecords | None = None
    cost: float = math.nan
    """What the network computed, in guided passes (in passes, where nothing is guided); by default NFE."""
    carried_versions: NDArray[np.int64] | None = None
    """(d,) versions of the weights behind each decision, where they changed on the way; None: all the same."""

    def __post_init__(self) -> None:
        """Fill in the cost of an episode whose passes all cost 1."""
        if math.isnan(self.cost):
            object.__setattr__(self, "cost", float(self.nfe))

    @property
    def weight_versions(self) -> NDArray[np.int64]:
        """(d,) version of the weights behind each decision."""
        if self.carried_versions is not None:
            return self.carried_versions
        return np.full(len(self.actions), self.weight_version, np.int64)

    @property
    def attempts(self) -> NDArray[np.int64]:
        """(d,) how often the image had been begun again before each decision."""
        return np.cumsum(self.actions == Action.REDRAW) - (self.actions == Action.REDRAW)

    @property
    def rewards(self) -> NDArray[np.float32]:
        """(d,) reward per decision."""
        return self.terms.sum(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEpisode:
    """A ticket that could not be finished: counted, reported, and reissued or masked; never a zero."""

    ticket: Ticket
    reason: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    final: bool = False
    """Nothing comes of handing it out again: it ends the worker that is at work on it."""
