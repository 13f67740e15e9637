"""Episodes: what they are made of, and that slots, rows and order do not change them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.records import TERM_NAMES, Reference, StopRule
from addiffusion.reward import reference_of
from rollout_workers.collector import Collector
from rollout_workers.metrics import STAGES
from tests.fakes import ToyBackbone, ToyScoring
from tests.rollout_workers.rollouts import (
    FINISH,
    STEPS,
    WARMUP,
    K,
    always,
    assert_same,
    hashed_policy,
    make_collector,
    make_config,
    make_tickets,
    refine_at_last,
    refuse_to_act,
    run_tickets,
)


@given(
    slots=st.integers(1, 7),
    share=st.floats(0, 1),
    order=st.permutations(range(6)),
    finish_steps=st.sampled_from([0, FINISH]),
)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_slots_rows_and_order_do_not_change_episodes(
    slots: int, share: float, order: list[int], finish_steps: int
) -> None:
    tickets = make_tickets(6)
    expected = run_tickets(make_config(slots=2, finish_steps=finish_steps), tickets)
    config = make_config(slots=slots, rows=2 + round(share * 2 * (slots - 1)), finish_steps=finish_steps)
    assert_same(run_tickets(config, [tickets[index] for index in order]), expected)


def test_a_second_call_sees_nothing_of_the_first() -> None:
    collector = make_collector(make_config())
    tickets = make_tickets(4)
    first = collector.collect(tickets, hashed_policy, weight_version=1)
    second = collector.collect(tickets, hashed_policy, weight_version=1)
    assert_same(first.episodes, second.episodes)


@pytest.mark.parametrize("finish_steps", [0, FINISH])
def test_every_pass_is_accounted_for(finish_steps: int) -> None:
    episodes = run_tickets(make_config(finish_steps=finish_steps), make_tickets(12))
    assert {action for episode in episodes for action in episode.actions.tolist()} == {*Action} - {
        Action.LEAP,
        Action.UNGUIDED,
        Action.REDRAW,
    }
    for episode in episodes:
        assert WARMUP + 1 + episode.nfe_spent.sum() == episode.nfe
        assert episode.network_evals == 2 * episode.nfe
        refines = episode.actions == Action.REFINE
        assert (episode.nfe_spent[:-1] == 1 + K * refines[:-1]).all()
        assert (np.diff(episode.steps) == 1).all()
        assert episode.steps[0] == WARMUP


@pytest.mark.parametrize("finish_steps", [0, FINISH])
def test_always_stop_ends_at_the_first_decision(finish_steps: int) -> None:
    for episode in run_tickets(make_config(finish_steps=finish_steps), make_tickets(4), always(Action.STOP)):
        assert episode.actions.tolist() == [Action.STOP]
        assert episode.nfe == WARMUP + 1 + finish_steps
        assert episode.nfe_spent.tolist() == [finish_steps]
        changed = not np.array_equal(episode.scores[0], episode.scores[1])
        assert changed == (finish_steps > 0)


def test_always_continue_runs_the_whole_schedule() -> None:
    for episode in run_tickets(make_config(), make_tickets(4), always(Action.CONTINUE)):
        assert episode.nfe == STEPS
        assert episode.actions.tolist() == [Action.CONTINUE] * (STEPS - WARMUP)
        np.testing.assert_array_equal(episode.scores[-1], episode.scores[-2])


def test_a_refine_at_the_last_point_is_the_result() -> None:
    for episode in run_tickets(make_config(), make_tickets(4), refine_at_last):
        assert episode.actions.tolist() == [Action.CONTINUE] * (STEPS - WARMUP - 1) + [Action.REFINE]
        assert episode.nfe == STEPS + K
        assert episode.nfe_spent[-1] == K
        assert not np.array_equal(episode.scores[-1], episode.scores[-2])


def test_forced_continue_gives_the_image_of_always_continue_without_being_watched() -> None:
    tickets = make_tickets(4, forced=Action.CONTINUE)
    backbone, scoring, config = ToyBackbone(), ToyScoring(), make_config(slots=4)
    forced = Collector(backbone=backbone, scoring=scoring, config=config).collect(
        tickets, refuse_to_act, weight_version=0
    )
    free = run_tickets(config, make_tickets(4), always(Action.CONTINUE))
    assert (backbone.denoise_calls, backbone.decode_calls) == (STEPS, 1)
    assert [len(request.images) for request in scoring.requests] == [4]
    for static, adaptive in zip(forced.episodes, free, strict=True):
        np.testing.assert_array_equal(static.image, adaptive.image)
        np.testing.assert_array_equal(static.scores[-1], adaptive.scores[-1])
        np.testing.assert_array_equal(static.final_dino, adaptive.final_dino)
        assert static.nfe == STEPS
        assert static.phi.shape == (0, adaptive.phi.shape[1])
        assert (static.scores.shape, static.terms.shape, static.logits.shape) == ((1, 3), (0, 4), (0, 3))


def test_forced_stop_finishes() -> None:
    for episode in run_tickets(make_config(), make_tickets(2, forced=Action.STOP), refuse_to_act):
        assert episode.nfe == WARMUP + 1 + FINISH


@pytest.mark.parametrize("refine_last", [False, True])
def test_a_control_stops_where_its_rule_says_after_one_refine_if_it_says_so(refine_last: bool) -> None:
    rule = StopRule(at_step=WARMUP + 2, refine_last=refine_last)
    tickets = make_tickets(2, forced=Action.CONTINUE, stop_rule=rule)
    for episode in run_tickets(make_config(), tickets, refuse_to_act):
        assert episode.nfe == WARMUP + 3 + FINISH + (K if refine_last else 0)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_slots_are_refilled_at_once_and_refines_share_the_ticks_of_others(slots: int) -> None:
    """The network runs as often as a queue needs whose every slot takes the next ticket when its last one ends."""
    backbone = ToyBackbone()
    collector = Collector(backbone=backbone, scoring=ToyScoring(), config=make_config(slots=slots))
    episodes = collector.collect(make_tickets(9), hashed_policy, weight_version=1).episodes
    free_at = [0] * slots
    for episode in episodes:
        slot = free_at.index(min(free_at))
        free_at[slot] += episode.nfe
    assert any(Action.REFINE in episode.actions for episode in episodes)
    assert backbone.denoise_calls == max(free_at)


def test_log_prob_and_logits_are_the_policys() -> None:
    for episode in run_tickets(make_config(), make_tickets(4)):
        np.testing.assert_array_equal(episode.logits, hashed_policy(episode.phi))
        log_probs = episode.logits - np.log(np.exp(episode.logits).sum(axis=1, keepdims=True))
        taken = log_probs[np.arange(len(episode.actions)), episode.actions]
        np.testing.assert_allclose(episode.log_prob, taken, atol=1e-6)
        assert episode.log_prob.dtype == np.float32


def test_without_exploration_the_likeliest_action_is_taken() -> None:
    for episode in run_tickets(make_config(), make_tickets(6, explore=False)):
        np.testing.assert_array_equal(episode.actions, episode.logits.argmax(axis=1))


def test_action_seed_moves_actions_but_not_the_first_observation() -> None:
    one = run_tickets(make_config(), make_tickets(8))
    other = run_tickets(make_config(), make_tickets(8, action_seed=7))
    assert any(a.actions.tolist() != b.actions.tolist() for a, b in zip(one, other, strict=True))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.phi[0], right.phi[0])


def test_paired_pays_relative_to_the_reference() -> None:
    config = make_config(preset="paired")
    references = [reference_of(episode) for episode in run_tickets(config, make_tickets(3, forced=Action.CONTINUE))]
    tickets = [replace(ticket, reference=ref) for ticket, ref in zip(make_tickets(3), references, strict=True)]
    for episode in run_tickets(config, tickets, always(Action.CONTINUE)):  # ends in the reference itself
        assert episode.rewards.sum() == pytest.approx(-0.01 * episode.nfe_spent.sum(), abs=1e-4)
    for episode in run_tickets(config, tickets, always(Action.STOP)):
        quality = _quality(config, episode.scores[-1], references[episode.ticket.ticket_id])
        assert quality != 0.0
        assert episode.terms[:, TERM_NAMES.index("quality")].sum() == pytest.approx(quality, abs=1e-4)


def _quality(config: Config, scores: NDArray[np.float32], reference: Reference) -> float:
    weights, scales = config.reward.weights, config.reward.scales
    unit = [
        weights.clip / scales.clip,
        weights.aesthetic / scales.aesthetic,
        weights.image_reward / scales.image_reward,
    ]
    return float(((scores - reference.scores) * unit).sum())


def test_bookkeeping_of_a_batch() -> None:
    collected = make_collector(make_config()).collect(make_tickets(3), hashed_policy, weight_version=17)
    assert set(collected.stage_s) == set(STAGES)
    assert collected.stage_s["score"] > 0
    assert all(seconds >= 0 for seconds in collected.stage_s.values())
    assert collected.stage_s["network"] > 0
    assert {episode.weight_version for episode in collected.episodes} == {17}
    assert all(episode.seconds > 0 for episode in collected.episodes)


def test_work_is_counted_by_itself_while_tickets_wait() -> None:
    """Passes up to the one in which the last ticket gets a slot; none where there are slots for all."""
    collector = make_collector(make_config(slots=2))
    few, many = (collector.collect(make_tickets(count), hashed_policy, weight_version=0) for count in (2, 6))
    assert math.isnan(few.full_queue.seconds_per_eval)
    evals = sum(episode.network_evals for episode in many.episodes)
    assert 0 < many.full_queue.network_evals < evals
    assert 0 < many.full_queue.seconds < sum(episode.seconds for episode in many.episodes)
