"""From scores and passes to reward terms: pure arithmetic, no models and no state.

Shapes: ``d`` decisions of one episode, ``k`` score names, ``f`` DINO features. Rows ``0 .. d - 1`` of scores and
features belong to the image each decision saw, row ``d`` to the returned image; the reward of decision ``j`` is what
happened between rows ``j`` and ``j + 1``.

Preset ``paired``. The potential of an image x against the same seed's full-length image ref is

    Q(x) = sum over s in (clip, aesthetic, image_reward) of  weight_s * (score_s(x) - score_s(ref)) / scale_s

and the last decision earns ``Q(x[d])`` as quality and, as terminal term, the similarity
``D = weight_dino * (<dino(x[d]), dino(ref)> - 1) / scale_dino <= 0``. With ``credit: telescoped`` a decision earns
``Q(x[j + 1]) - Q(x[j])`` instead. That sums to ``Q(x[d]) - Q(x[0])``, where ``x[0]`` is what the forced warm-up left
behind: a constant of (prompt, seed) that no policy can influence, but one the critic must explain, since the reference
is not in phi (docs/adr/0005).

Preset ``phase1``. Differences of a potential without a reference, plus the similarity of successive predictions at
every decision, plus weighted final scores in units of their scales. It pays for each step and so favours "always
continue".

Ablations, for both. ``normalise: false`` takes every scale as 1. ``terminal_form: multiplicative`` joins the final
parts P (``paired``: Q(x[d]) and D; ``phase1``: each weighted final score) to ``prod(1 + P) - 1`` instead of their sum;
what quality already pays is taken off again. ``drop`` leaves whole terms out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import RewardSection
from addiffusion.errors import ContractError, ScorerError
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode, Reference

_QUALITY, _EFFICIENCY, _TERMINAL, _REFINE = range(len(TERM_NAMES))


def compute_terms(  # noqa: PLR0913 - the six facts a reward is made of
    section: RewardSection,
    *,
    scores: NDArray[np.float32],
    dino: NDArray[np.float32],
    cost_spent: NDArray[np.float64] | NDArray[np.int64],
    refined: NDArray[np.bool_],
    c_nfe: float,
    reference: Reference | None,
    attention_entropy: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Reward terms (d, 4) of one episode, one row per decision, columns in the order of ``TERM_NAMES``.

    An episode without decisions has no terms: the result is (0, 4), and no reference is asked for.

    Args:
        section: how episodes are paid; columns whose weight is 0 are not read.
        scores: (d + 1, k) as in ``Episode``.
        dino: (d + 1, f) L2-normalised features: their inner product is the cosine.
        cost_spent: (d,) cost of what followed each decision, in passes.
        refined: (d,) whether each decision was a refine.
        c_nfe: price of one pass in this episode (the ticket's, not the section's).
        reference: the same seed's full-length image; None where no reward is relative to one.
        attention_entropy: (d,) of the map behind each refine; None where nothing was refined.

    Raises:
        ContractError: shapes or the reference do not fit the preset.
        ScorerError: a column with a weight holds NaN or infinity; the message names it.
    """
    decision_count = len(cost_spent)
    _check_shapes(scores, dino, refined, decision_count)
    if decision_count == 0:
        return np.zeros((0, len(TERM_NAMES)), np.float32)
    terms = np.zeros((decision_count, len(TERM_NAMES)), np.float64)
    if section.preset == "paired":
        terms[:, _QUALITY], terms[-1, _TERMINAL] = paired(section, scores, dino, reference)
    else:
        terms[:, _QUALITY], terms[-1, _TERMINAL] = phase1(section, scores, dino)
    if pays_for_passes(section):
        terms[:, _EFFICIENCY] = -c_nfe * cost_spent
    if "refine" not in section.drop:
        terms[:, _REFINE] = _refine_bonus(section, refined, attention_entropy)
    return terms.astype(np.float32)


def paired(
    section: RewardSection, scores: NDArray[np.float32], dino: NDArray[np.float32], reference: Reference | None
) -> tuple[NDArray[np.float64], float]:
    """Quality (d,) and terminal term of an episode against the same seed's full-length image.

    Args:
        section: how episodes are paid.
        scores: (d + 1, k) as in ``Episode``.
        dino: (d + 1, f) L2-normalised features.
        reference: the full-length image.

    Raises:
        ContractError: there is no reference, and one of the two terms is not dropped.
        ScorerError: a column with a weight holds NaN or infinity.
    """
    quality, terminal = np.zeros(len(scores) - 1, np.float64), 0.0
    if not needs_reference(section):
        return quality, terminal
    if reference is None:
        raise ContractError(
            "The reward preset `paired` needs the scores of the full-length image, but the ticket has no reference; "
            "roll the references out first, or set reward.preset=phase1."
        )
    if "quality" not in section.drop:
        if section.credit == "telescoped":
            quality = np.diff(potential(section, scores, reference))
        else:
            quality[-1] = potential(section, scores[-1:], reference)[0]
    if "terminal" not in section.drop:
        terminal = _similarity(section, dino[-1], reference)
        if section.terminal_form == "multiplicative":
            worth = float(potential(section, scores[-1:], reference)[0])
            terminal = _product(worth, terminal) - worth
    return quality, terminal


def phase1(
    section: RewardSection, scores: NDArray[np.float32], dino: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    """Quality (d,) and terminal term of an episode by itself; shapes as in ``paired``.

    Raises:
        ScorerError: a column with a weight holds NaN or infinity.
    """
    quality, terminal = np.zeros(len(scores) - 1, np.float64), 0.0
    if "quality" not in section.drop:
        quality = np.diff(potential(section, scores))
        if section.weights.dino > 0.0:
            features = _finite(dino, "dino", "the episode")
            quality = quality + section.weights.dino * (features[1:] * features[:-1]).sum(axis=1)
    if "terminal" not in section.drop:
        parts = _final_parts(section, scores[-1])
        terminal = sum(parts) if section.terminal_form == "additive" else _product(*parts)
    return quality, terminal


def potential(
    section: RewardSection, scores: NDArray[np.float32], reference: Reference | None = None
) -> NDArray[np.float64]:
    """Q (n,) of each row of ``scores`` (n, k), relative to ``reference`` (None: to a score of zero), float64.

    With ``section.bound`` b it is b tanh(Q / b): as it was near 0, and never beyond b.

    Raises:
        ScorerError: a column with a weight holds NaN or infinity; the message names it.
    """
    total = np.zeros(len(scores), np.float64)
    for column, name in enumerate(SCORE_NAMES):
        weight = getattr(section.weights, name) / _scale(section, name)
        if weight == 0.0:
            continue
        values = _finite(scores[:, column], name, "the episode")
        origin = 0.0 if reference is None else float(_finite(reference.scores[column], name, "the reference"))
        total += weight * (values - origin)
    return total if section.bound is None else section.bound * np.tanh(total / section.bound)


def _product(*parts: float) -> float:
    """The parts of the final image's worth as one number, ``multiplicative``."""
    return math.prod(1.0 + part for part in parts) - 1.0


def _similarity(section: RewardSection, dino: NDArray[np.float32], reference: Reference) -> float:
    """D <= 0: how far the image is from the full-length one."""
    weight = section.weights.dino / _scale(section, "dino")
    if weight == 0.0:
        return 0.0
    final = _finite(dino, "dino", "the episode")
    full_length = _finite(reference.dino_embedding, "dino", "the reference")
    return weight * (float((final * full_length).sum()) - 1.0)


def _final_parts(section: RewardSection, final: NDArray[np.float32]) -> list[float]:
    """``phase1``'s final scores in units of their scales, weighted; those without a weight are not read."""
    weights = {name: getattr(section.terminal, name) / _scale(section, name) for name in SCORE_NAMES}
    return [
        weight * float(_finite(final[column], name, "the episode"))
        for column, (name, weight) in enumerate(weights.items())
        if weight > 0.0
    ]


def _refine_bonus(
    section: RewardSection, refined: NDArray[np.bool_], attention_entropy: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """Refine term (d,)."""
    bonus = section.refine_bonus * refined.astype(np.float64)
    if section.refine_bonus_by == "count" or not bonus.any():
        return bonus
    if attention_entropy is None:
        raise ContractError("reward.refine_bonus_by=entropy needs the attention entropy of each refine.")
    return bonus * attention_entropy


def needs_reference(section: RewardSection) -> bool:
    """Whether an episode is paid relative to the same seed's full-length image."""
    return section.preset == "paired" and not {"quality", "terminal"} <= set(section.drop)


def pays_for_passes(section: RewardSection) -> bool:
    """Whether a pass costs its price: not where ``reward.drop`` has efficiency."""
    return "efficiency" not in section.drop


def pays_for_image(section: RewardSection) -> bool:
    """Whether the returned image, its NFE and its reference decide all that stopping can earn.

    They don't where ``phase1`` pays for the likeness of one prediction to the one before: that is paid on the way.
    """
    return section.preset == "paired" or section.weights.dino == 0.0 or "quality" in section.drop


def reward_of_image(
    section: RewardSection,
    *,
    scores: NDArray[np.float32],
    dino: NDArray[np.float32],
    nfe: int,
    c_nfe: float,
    reference: Reference,
) -> float:
    """Reward of an episode that returns this image, price included, without refine bonus.

    What the forced warm-up left behind is taken to be worth what the reference is: a constant of (prompt, seed), which
    falls out of every difference of two images of that pair.

    Args:
        section: how episodes are paid.
        scores: (k,) of the returned image.
        dino: (f,) of the returned image.
        nfe: passes of the whole episode.
        c_nfe: price of one pass.
        reference: the same seed's full-length image.

    Raises:
        ContractError: more than the image is paid for; see ``pays_for_image``.
        ScorerError: a column with a weight holds NaN or infinity.
    """
    if not pays_for_image(section):
        raise ContractError("reward.preset=phase1 with reward.weights.dino pays on the way, which no image tells of.")
    terms = compute_terms(
        section,
        scores=np.stack([reference.scores, scores]),
        dino=np.stack([reference.dino_embedding, dino]),
        cost_spent=np.array([nfe]),
        refined=np.zeros(1, np.bool_),
        c_nfe=c_nfe,
        reference=reference,
    )
    return float(terms.astype(np.float64).sum())


def reference_of(episode: Episode) -> Reference:
    """The reference that a forced full-length episode yields. Arrays are copies: the episode's own may be freed.

    Raises:
        ContractError: the episode was not forced to continue to the end, so its image is not a full-length one.
        ScorerError: its final scores hold NaN or infinity.
    """
    if episode.ticket.forced is not Action.CONTINUE:
        raise ContractError(
            f"Episode {episode.ticket.ticket_id} is not forced to continue, so it can't be a reference; "
            "issue its ticket with forced=Action.CONTINUE.",
            ticket_id=episode.ticket.ticket_id,
        )
    where = f"reference episode {episode.ticket.ticket_id}"
    for column, name in enumerate(SCORE_NAMES):
        _finite(episode.scores[-1, column], name, where)
    _finite(episode.final_dino, "dino", where)
    return Reference(
        scores=np.array(episode.scores[-1], np.float32), dino_embedding=np.array(episode.final_dino, np.float32)
    )


def _scale(section: RewardSection, name: str) -> float:
    return getattr(section.scales, name) if section.normalise else 1.0


def _finite(values: NDArray[np.float32], name: str, where: str) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ScorerError(
            f"Score column `{name}` of {where} holds NaN or infinity, so it has no reward; "
            f"reissue the ticket, or give `{name}` a weight of 0.",
            column=name,
        )
    return np.asarray(values, np.float64)


def _check_shapes(
    scores: NDArray[np.float32], dino: NDArray[np.float32], refined: NDArray[np.bool_], decision_count: int
) -> None:
    rows = decision_count + 1
    if scores.shape != (rows, len(SCORE_NAMES)) or len(dino) != rows or len(refined) != decision_count:
        raise ContractError(
            f"An episode of {decision_count} decisions needs scores ({rows}, {len(SCORE_NAMES)}), {rows} rows of dino "
            f"and {decision_count} of refined; got {scores.shape}, {dino.shape} and {refined.shape}.",
            decision_count=decision_count,
        )
