"""Reward arithmetic: hand-computed cases, and what holds for every episode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import RewardSection, TerminalWeights, Weights
from addiffusion.errors import ContractError, ScorerError
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode, Prompt, Reference, Ticket
from addiffusion.reward import compute_terms, pays_for_image, potential, reference_of, reward_of_image

PAIRED = RewardSection()
TELESCOPED = RewardSection(credit="telescoped")
PHASE1 = RewardSection(preset="phase1")
QUALITY, EFFICIENCY, TERMINAL, REFINE = range(4)
SCORES = np.array([[0.20, 5.0, 0.0], [0.25, 5.3, 0.2], [0.30, 5.0, 0.6]], np.float32)
DINO = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
REFERENCE = Reference(scores=np.array([0.30, 5.3, 0.6], np.float32), dino_embedding=np.array([0.6, 0.8], np.float32))


def terms_of(section: RewardSection = PAIRED, **changes: Any) -> NDArray[np.float32]:
    facts: dict[str, Any] = {
        "scores": SCORES,
        "dino": DINO,
        "cost_spent": np.array([1, 5]),
        "refined": np.array([True, False]),
        "c_nfe": 0.01,
        "reference": REFERENCE,
    }
    return compute_terms(section, **(facts | changes))


def test_paired_by_hand() -> None:
    # at the end: (.30 - .30)/.05 * 1 + (5 - 5.3)/.3 * .5 + (.6 - .6)/.2 * .8 = -.5
    # terminal: .2 * (.8 - 1) / .1 = -.4; passes: 1 and 5 at .01
    expected = [[0.0, -0.01, 0.0, 0.0], [-0.5, -0.05, -0.4, 0.0]]
    np.testing.assert_allclose(terms_of(), expected, atol=1e-5)


def test_telescoped_by_hand() -> None:
    # decision 0: .05/.05 * 1 + .3/.3 * .5 + .2/.2 * .8 = 2.3; decision 1: 1 - .5 + .4/.2 * .8 = 2.1
    # terminal: .2 * (.8 - 1) / .1 = -.4; passes: 1 and 5 at .01
    expected = [[2.3, -0.01, 0.0, 0.0], [2.1, -0.05, -0.4, 0.0]]
    np.testing.assert_allclose(terms_of(TELESCOPED), expected, atol=1e-5)


def test_phase1_by_hand() -> None:
    # the same differences plus .2 * similarity to the previous prediction (.6, then .8)
    # terminal: 2 * .3/.05 + 1 * 5/.3 + 1.5 * .6/.2 = 12 + 16.6667 + 4.5
    expected = [[2.42, -0.01, 0.0, 0.0], [2.26, -0.05, 33.16667, 0.0]]
    np.testing.assert_allclose(terms_of(PHASE1, reference=None), expected, atol=1e-4)


def test_refine_bonus_is_paid_per_refine_only() -> None:
    terms = terms_of(RewardSection(refine_bonus=0.5))
    np.testing.assert_array_equal(terms[:, REFINE], np.array([0.5, 0.0], np.float32))
    np.testing.assert_array_equal(terms[:, :REFINE], terms_of()[:, :REFINE])


def test_a_refine_bonus_by_entropy_is_paid_by_how_even_attention_was() -> None:
    section = RewardSection(refine_bonus=0.5, refine_bonus_by="entropy")
    terms = terms_of(section, attention_entropy=np.array([0.8, 0.3], np.float32))
    np.testing.assert_allclose(terms[:, REFINE], [0.4, 0.0], atol=1e-6)
    with pytest.raises(ContractError, match="attention entropy"):
        terms_of(section)


def test_raw_scores_by_hand() -> None:
    # (.30 - .30) * 1 + (5 - 5.3) * .5 + (.6 - .6) * .8 = -.15; .2 * (.8 - 1) = -.04
    expected = [[0.0, -0.01, 0.0, 0.0], [-0.15, -0.05, -0.04, 0.0]]
    np.testing.assert_allclose(terms_of(RewardSection(normalise=False)), expected, atol=1e-5)


def test_multiplicative_terminals_by_hand() -> None:
    # paired: quality -.5, similarity -.4: .5 * .6 - 1 = -.7, of which quality pays -.5
    section = RewardSection(terminal_form="multiplicative")
    np.testing.assert_allclose(terms_of(section)[-1, [QUALITY, TERMINAL]], [-0.5, -0.2], atol=1e-5)
    # phase1: 12, 16.6667, 4.5: 13 * 17.6667 * 5.5 - 1
    section = RewardSection(preset="phase1", terminal_form="multiplicative")
    assert terms_of(section, reference=None)[-1, TERMINAL] == pytest.approx(1262.1667, abs=0.05)


@pytest.mark.parametrize("preset", ["paired", "phase1"])
@pytest.mark.parametrize("name", TERM_NAMES)
def test_a_dropped_term_is_zero_and_the_others_stay(preset: Any, name: Any) -> None:
    whole = RewardSection(preset=preset, refine_bonus=0.5)
    dropped = terms_of(whole.model_copy(update={"drop": (name,)}))
    column = TERM_NAMES.index(name)
    assert (dropped[:, column] == 0).all()
    others = [other for other in range(4) if other != column]
    np.testing.assert_array_equal(dropped[:, others], terms_of(whole)[:, others])


def test_without_quality_and_terminal_no_score_is_read() -> None:
    section = RewardSection(drop=("quality", "terminal"))
    terms = terms_of(section, scores=np.full_like(SCORES, np.nan), dino=np.full_like(DINO, np.nan), reference=None)
    np.testing.assert_allclose(terms[:, EFFICIENCY], [-0.01, -0.05], atol=1e-7)


def test_the_reference_itself_has_potential_zero() -> None:
    np.testing.assert_array_equal(potential(PAIRED, REFERENCE.scores[None], REFERENCE), [0.0])


@given(st.floats(0.1, 10), st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=8))
def test_a_bound_keeps_the_order_of_images_their_sign_and_small_differences(bound: float, changes: list[float]) -> None:
    scores = REFERENCE.scores + np.outer(changes, np.ones(len(REFERENCE.scores))).astype(np.float32)
    plain = potential(PAIRED, scores, REFERENCE)
    bounded = potential(PAIRED.model_copy(update={"bound": bound}), scores, REFERENCE)
    assert (np.abs(bounded) <= np.minimum(np.abs(plain), bound)).all()
    assert (np.sign(bounded) == np.sign(plain)).all()
    assert (np.diff(bounded[np.argsort(plain)]) >= 0).all()
    small = np.abs(plain) < bound / 10
    np.testing.assert_allclose(bounded[small], plain[small], rtol=0.004)


def test_an_episode_without_decisions_has_no_terms() -> None:
    empty = terms_of(scores=SCORES[:1], dino=DINO[:1], cost_spent=np.array([], int), refined=np.array([], bool))
    assert empty.shape == (0, len(TERM_NAMES))
    assert empty.dtype == np.float32


def test_paired_without_a_reference_is_refused() -> None:
    with pytest.raises(ContractError, match="has no reference"):
        terms_of(reference=None)


@pytest.mark.parametrize("changes", [{"scores": SCORES[:, :2]}, {"dino": DINO[:2]}, {"refined": np.array([False])}])
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="An episode of 2 decisions needs"):
        terms_of(**changes)


values = st.floats(-10, 10, width=32)


@st.composite
def episodes(draw: st.DrawFn) -> dict[str, Any]:
    decisions = draw(st.integers(1, 6))
    return {
        "scores": draw(arrays(np.float32, (decisions + 1, len(SCORE_NAMES)), elements=values)),
        "dino": draw(arrays(np.float32, (decisions + 1, 3), elements=st.floats(-1, 1, width=32))),
        "cost_spent": draw(arrays(np.int64, decisions, elements=st.integers(0, 50))),
        "refined": draw(arrays(np.bool_, decisions)),
        "c_nfe": draw(st.floats(0, 1)),
        "reference": Reference(
            scores=draw(arrays(np.float32, len(SCORE_NAMES), elements=values)),
            dino_embedding=draw(arrays(np.float32, 3, elements=st.floats(-1, 1, width=32))),
        ),
    }


@settings(max_examples=60, deadline=None)
@given(episodes())
def test_quality_telescopes_to_the_final_image(facts: dict[str, Any]) -> None:
    terms = compute_terms(TELESCOPED, **facts).astype(np.float64)
    ends = potential(PAIRED, facts["scores"][[0, -1]], facts["reference"])
    assert terms[:, QUALITY].sum() == pytest.approx(ends[1] - ends[0], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(episodes())
def test_both_credits_pay_the_same_but_for_where_the_episode_began(facts: dict[str, Any]) -> None:
    final, telescoped = (compute_terms(section, **facts).astype(np.float64).sum() for section in (PAIRED, TELESCOPED))
    began = potential(PAIRED, facts["scores"][:1], facts["reference"])[0]
    assert final == pytest.approx(telescoped + began, abs=1e-2)


@st.composite
def sections(draw: st.DrawFn) -> RewardSection:
    return RewardSection(
        preset=draw(st.sampled_from(["paired", "phase1"])),
        credit=draw(st.sampled_from(["final", "telescoped"])),
        normalise=draw(st.booleans()),
        terminal_form=draw(st.sampled_from(["additive", "multiplicative"])),
        drop=tuple(draw(st.sets(st.sampled_from(["quality", "efficiency", "terminal"])))),
        weights=Weights(dino=draw(st.sampled_from([0.0, 0.2]))),
    )


@settings(max_examples=200, deadline=None)
@given(episodes(), sections(), st.data())
def test_two_images_of_a_pair_differ_in_reward_by_what_their_episodes_do(
    facts: dict[str, Any], section: RewardSection, data: st.DataObject
) -> None:
    assume(pays_for_image(section))
    facts = facts | {"refined": np.zeros_like(facts["refined"])}
    other = {**facts, "scores": facts["scores"].copy(), "dino": facts["dino"].copy()}
    other["scores"][-1] = data.draw(arrays(np.float32, len(SCORE_NAMES), elements=values))
    other["cost_spent"] = facts["cost_spent"] + data.draw(st.integers(0, 9))
    episodes_earn = [compute_terms(section, **one).astype(np.float64).sum() for one in (facts, other)]
    images_earn = [
        reward_of_image(
            section,
            scores=one["scores"][-1],
            dino=one["dino"][-1],
            nfe=int(one["cost_spent"].sum()),
            c_nfe=one["c_nfe"],
            reference=one["reference"],
        )
        for one in (facts, other)
    ]
    scale = max(map(abs, [*episodes_earn, *images_earn, 1.0]))
    assert images_earn[1] - images_earn[0] == pytest.approx(episodes_earn[1] - episodes_earn[0], abs=1e-4 * scale)


def test_likeness_on_the_way_is_in_no_image() -> None:
    assert not pays_for_image(PHASE1)
    facts = {"scores": SCORES[-1], "dino": DINO[-1], "nfe": 6, "c_nfe": 0.01, "reference": REFERENCE}
    with pytest.raises(ContractError, match=r"reward\.weights\.dino pays on the way"):
        reward_of_image(PHASE1, **facts)
    without = RewardSection(preset="phase1", weights=Weights(dino=0.0))
    # Q(.30, 5, .6) - Q(.30, 5.3, .6) = -.5; 12 + 16.6667 + 4.5 at the end; 6 passes at .01
    assert reward_of_image(without, **facts) == pytest.approx(-0.5 + 33.16667 - 0.06, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from([PAIRED, TELESCOPED]), st.data())
def test_what_happens_between_first_and_last_image_earns_nothing(
    facts: dict[str, Any], section: RewardSection, data: st.DataObject
) -> None:
    middle = facts["scores"].copy()
    middle[1:-1] = data.draw(arrays(np.float32, middle[1:-1].shape, elements=values))
    totals = [compute_terms(section, **(facts | {"scores": s})).sum() for s in (facts["scores"], middle)]
    assert totals[0] == pytest.approx(totals[1], abs=1e-2)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from([PAIRED, PHASE1]), st.floats(0.0, 4.0))
def test_the_price_is_a_cost_linear_in_passes_and_price(
    facts: dict[str, Any], section: RewardSection, factor: float
) -> None:
    terms = compute_terms(section, **facts)
    assert (terms[:, EFFICIENCY] <= 0).all()
    # atol: float32 prices below 1e-38 have no 1e-5 of precision left
    dearer = compute_terms(section, **(facts | {"c_nfe": facts["c_nfe"] * factor}))
    longer = compute_terms(section, **(facts | {"cost_spent": facts["cost_spent"] * 3}))
    np.testing.assert_allclose(dearer[:, EFFICIENCY], terms[:, EFFICIENCY] * factor, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(longer[:, EFFICIENCY], terms[:, EFFICIENCY] * 3, rtol=1e-5, atol=1e-30)
    others = [QUALITY, TERMINAL, REFINE]
    np.testing.assert_array_equal(dearer[:, others], terms[:, others])


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from(["paired", "phase1"]), st.sampled_from(SCORE_NAMES))
def test_a_column_without_weight_changes_nothing(facts: dict[str, Any], preset: Any, name: str) -> None:
    off = {name: 0.0}
    section = RewardSection(preset=preset, weights=Weights(**off), terminal=TerminalWeights(**off))
    spoiled = facts["scores"].copy()
    spoiled[:, SCORE_NAMES.index(name)] = np.nan
    before, after = (compute_terms(section, **(facts | {"scores": s})) for s in (facts["scores"], spoiled))
    np.testing.assert_array_equal(before, after)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from(["paired", "phase1"]))
def test_dino_without_weight_changes_nothing(facts: dict[str, Any], preset: Any) -> None:
    section = RewardSection(preset=preset, weights=Weights(dino=0.0))
    spoiled = np.full_like(facts["dino"], np.nan)
    before, after = (compute_terms(section, **(facts | {"dino": d})) for d in (facts["dino"], spoiled))
    np.testing.assert_array_equal(before, after)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from([PAIRED, PHASE1]))
def test_finite_in_finite_out(facts: dict[str, Any], section: RewardSection) -> None:
    assert np.isfinite(compute_terms(section, **facts)).all()


@pytest.mark.parametrize(("section", "row"), [(PAIRED, 2), (TELESCOPED, 1), (PHASE1, 1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", SCORE_NAMES)
def test_a_bad_score_is_an_error_naming_its_column(section: RewardSection, row: int, bad: float, name: str) -> None:
    scores = SCORES.copy()
    scores[row, SCORE_NAMES.index(name)] = bad
    with pytest.raises(ScorerError, match=f"`{name}` of the episode") as caught:
        terms_of(section, scores=scores)
    assert caught.value.facts["column"] == name


@pytest.mark.parametrize("section", [PAIRED, PHASE1], ids=["paired", "phase1"])
def test_bad_dino_features_are_an_error(section: RewardSection) -> None:
    with pytest.raises(ScorerError, match="`dino` of the episode"):
        terms_of(section, dino=np.full_like(DINO, np.nan))


def test_a_bad_reference_is_an_error() -> None:
    with pytest.raises(ScorerError, match="`clip` of the reference"):
        terms_of(reference=replace(REFERENCE, scores=np.array([np.nan, 5.0, 0.0], np.float32)))
    with pytest.raises(ScorerError, match="`dino` of the reference"):
        terms_of(reference=replace(REFERENCE, dino_embedding=np.full(2, np.nan, np.float32)))


def forced_episode(forced: Action | None, final_scores: NDArray[np.float32]) -> Episode:
    prompt = Prompt(prompt_id=0, text="a red circle", tier=1)
    return Episode(
        ticket=Ticket(ticket_id=7, prompt=prompt, seed=1, action_seed=2, c_nfe=0.01, forced=forced),
        phi=np.zeros((0, 4), np.float32),
        actions=np.zeros(0, np.int64),
        log_prob=np.zeros(0, np.float32),
        logits=np.zeros((0, 3), np.float32),
        steps=np.zeros(0, np.int64),
        nfe_spent=np.zeros(0, np.int64),
        scores=final_scores[None],
        terms=np.zeros((0, 4), np.float32),
        final_dino=np.array([0.6, 0.8], np.float32),
        image=np.zeros((8, 8, 3), np.uint8),
        nfe=50,
        network_evals=100,
        weight_version=0,
        seconds=0.0,
    )


def test_a_reference_is_the_final_image_of_a_forced_episode_and_owns_its_memory() -> None:
    episode = forced_episode(Action.CONTINUE, SCORES[2])
    reference = reference_of(episode)
    np.testing.assert_array_equal(reference.scores, SCORES[2])
    np.testing.assert_array_equal(reference.dino_embedding, episode.final_dino)
    assert not np.shares_memory(reference.scores, episode.scores)
    assert not np.shares_memory(reference.dino_embedding, episode.final_dino)


@pytest.mark.parametrize("forced", [None, Action.STOP])
def test_only_full_length_episodes_are_references(forced: Action | None) -> None:
    with pytest.raises(ContractError, match="not forced to continue"):
        reference_of(forced_episode(forced, SCORES[2]))


def test_a_reference_without_scores_is_an_error() -> None:
    with pytest.raises(ScorerError, match="`aesthetic` of reference episode 7"):
        reference_of(forced_episode(Action.CONTINUE, np.array([0.3, np.nan, 0.1], np.float32)))
