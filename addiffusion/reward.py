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
"""

from __future__ import annotations

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
    nfe_spent: NDArray[np.int64],
    refined: NDArray[np.bool_],
    c_nfe: float,
    reference: Reference | None,
) -> NDArray[np.float32]:
    """Reward terms (d, 4) of one episode, one row per decision, columns in the order of ``TERM_NAMES``.

    ``scores`` is (d + 1, k), ``dino`` (d + 1, f), ``nfe_spent`` and ``refined`` (d,), as in ``Episode``. Columns whose
    weight is 0 are not read. DINO features must be L2-normalised: their inner product is the cosine. ``c_nfe`` is the
    price of one pass in this episode (the ticket's, not the section's). An episode without decisions has no terms: the
    result is (0, 4), and no reference is asked for.

    Raises:
        ContractError: shapes or the reference do not fit the preset.
        ScorerError: a column with a weight holds NaN or infinity; the message names it.
    """
    decision_count = len(nfe_spent)
    _check_shapes(scores, dino, refined, decision_count)
    if decision_count == 0:
        return np.zeros((0, len(TERM_NAMES)), np.float32)
    quality, terminal = (
        _paired(section, scores, dino, _needed(reference))
        if section.preset == "paired"
        else _phase1(section, scores, dino)
    )
    terms = np.zeros((decision_count, len(TERM_NAMES)), np.float64)
    terms[:, _QUALITY] = quality
    terms[:, _EFFICIENCY] = -c_nfe * nfe_spent
    terms[-1, _TERMINAL] = terminal
    terms[:, _REFINE] = section.refine_bonus * refined
    return terms.astype(np.float32)


def potential(
    section: RewardSection, scores: NDArray[np.float32], reference: Reference | None = None
) -> NDArray[np.float64]:
    """Q (n,) of each row of ``scores`` (n, k), relative to ``reference`` (None: to a score of zero), float64.

    Raises:
        ScorerError: a column with a weight holds NaN or infinity; the message names it.
    """
    total = np.zeros(len(scores), np.float64)
    for column, name in enumerate(SCORE_NAMES):
        weight = getattr(section.weights, name) / getattr(section.scales, name)
        if weight == 0.0:
            continue
        values = _finite(scores[:, column], name, "the episode")
        origin = 0.0 if reference is None else float(_finite(reference.scores[column], name, "the reference"))
        total += weight * (values - origin)
    return total


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


def _paired(
    section: RewardSection, scores: NDArray[np.float32], dino: NDArray[np.float32], reference: Reference
) -> tuple[NDArray[np.float64], float]:
    quality = _credited(section, scores, reference)
    weight = section.weights.dino / section.scales.dino
    if weight == 0.0:
        return quality, 0.0
    final = _finite(dino[-1], "dino", "the episode")
    full_length = _finite(reference.dino_embedding, "dino", "the reference")
    return quality, weight * (float((final * full_length).sum()) - 1.0)


def _credited(section: RewardSection, scores: NDArray[np.float32], reference: Reference) -> NDArray[np.float64]:
    """``paired``'s quality term (d,)."""
    if section.credit == "telescoped":
        return np.diff(potential(section, scores, reference))
    quality = np.zeros(len(scores) - 1, np.float64)
    quality[-1] = potential(section, scores[-1:], reference)[0]
    return quality


def _phase1(
    section: RewardSection, scores: NDArray[np.float32], dino: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    quality = np.diff(potential(section, scores))
    if section.weights.dino > 0.0:
        features = _finite(dino, "dino", "the episode")
        quality = quality + section.weights.dino * (features[1:] * features[:-1]).sum(axis=1)
    return quality, _final_scores(section, scores[-1])


def _final_scores(section: RewardSection, final: NDArray[np.float32]) -> float:
    """``phase1``'s terminal term: final scores in units of their scales, weighted."""
    total = 0.0
    for column, name in enumerate(SCORE_NAMES):
        weight = getattr(section.terminal, name) / getattr(section.scales, name)
        if weight > 0.0:
            total += weight * float(_finite(final[column], name, "the episode"))
    return total


def _finite(values: NDArray[np.float32], name: str, where: str) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ScorerError(
            f"Score column `{name}` of {where} holds NaN or infinity, so it has no reward; "
            f"reissue the ticket, or give `{name}` a weight of 0.",
            column=name,
        )
    return np.asarray(values, np.float64)


def _needed(reference: Reference | None) -> Reference:
    if reference is None:
        raise ContractError(
            "The reward preset `paired` needs the scores of the full-length image, but the ticket has no reference; "
            "roll the references out first, or set reward.preset=phase1."
        )
    return reference


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
