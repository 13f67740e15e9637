"""The constructors of a ticket: whose actions, and what is wanted of the episode."""

from __future__ import annotations

from addiffusion.actions import Action
from addiffusion.records import Prompt, RecordAllStops, StopRule, Ticket

PROMPT = Prompt(prompt_id=3, text="a red circle", tier=1)


def test_a_greedy_ticket_asks_the_policy_and_draws_nothing() -> None:
    ticket = Ticket.greedy(7, PROMPT, seed=5, c_nfe=0.01, keep_image=False)
    assert ticket == Ticket(
        ticket_id=7, prompt=PROMPT, seed=5, action_seed=0, c_nfe=0.01, explore=False, keep_image=False
    )
    assert ticket.observed


def test_a_full_length_ticket_asks_no_policy() -> None:
    rule = StopRule(at_step=4)
    ticket = Ticket.full_length(7, PROMPT, seed=5, c_nfe=0.01, stop_rule=rule)
    assert (ticket.forced, ticket.stop_rule, ticket.explore) == (Action.CONTINUE, rule, False)
    assert not ticket.observed
    assert Ticket.full_length(7, PROMPT, seed=5, c_nfe=0.01).stop_rule is None


def test_a_surveyed_ticket_is_full_length_and_observed() -> None:
    record_stops = RecordAllStops(stride=2, metrics=("scene_soft",))
    ticket = Ticket.recording_stops(record_stops, 7, PROMPT, seed=5, c_nfe=0.01, keep_image=False)
    assert (ticket.forced, ticket.record_stops, ticket.keep_image, ticket.observed) == (
        Action.CONTINUE,
        record_stops,
        False,
        True,
    )
