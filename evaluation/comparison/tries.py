"""Several draws of a case that are looked at on the way: one goes on, the others end there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from addiffusion.records import SCORE_NAMES, Episode, FailedEpisode, Ticket, TicketId
from addiffusion.rollouts import Rollouts
from evaluation.comparison.contestants import Contestant, EvalCase, tickets_of

CLIP = SCORE_NAMES.index("clip")


def draw_tries(
    rollouts: Rollouts, contestant: Contestant, cases: Sequence[EvalCase]
) -> tuple[dict[int, Episode], dict[int, str]]:
    """Each case's image by the draw that goes on, with the passes of all that were looked at.

    What goes on is drawn again from its noise, which gives the same image; passes up to the look count once.

    Args:
        rollouts: who draws.
        contestant: with ``abandon_at``.
        cases: prompts and seeds.

    Returns:
        Episodes, and reasons of cases without one, by index of the case.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    assert contestant.abandon_at is not None
    bare = contestant.sampler.model_copy(update={"finish_steps": 0})
    look = replace(contestant, sampler=bare, stop_steps=(contestant.abandon_at,))
    seen = rollouts.collect(tickets_of(look, cases), sampler=bare)
    looks: dict[int, list[Episode]] = {}
    for episode in seen.episodes:
        looks.setdefault(episode.ticket.ticket_id // contestant.draws, []).append(episode)
    used = {index: _used(tries, contestant.redraw_below) for index, tries in looks.items()}
    tickets = [_going_on(case, used[case.index][0]) for case in cases if case.index in used]
    whole = rollouts.collect(tickets, sampler=contestant.sampler)
    failed = {one.ticket.ticket_id // contestant.draws: one for one in seen.failed}
    failed |= {one.ticket.ticket_id: one for one in whole.failed}
    return {one.ticket.ticket_id: _with_looks(one, used) for one in whole.episodes}, _reasons(failed)


def _used(tries: Sequence[Episode], below: float | None) -> list[Episode]:
    """Draws that are looked at, the one that goes on first."""
    scores = [float(one.scores[-1, CLIP]) for one in tries]
    if below is None:
        kept, count = scores.index(max(scores)), len(tries)
    else:
        kept = next((number for number, score in enumerate(scores) if score >= below), len(tries) - 1)
        count = kept + 1
    return [tries[kept], *(one for number, one in enumerate(tries[:count]) if number != kept)]


def _going_on(case: EvalCase, look: Episode) -> Ticket:
    return Ticket.full_length(TicketId(case.index), case.prompt, seed=look.ticket.seed, c_nfe=look.ticket.c_nfe)


def _with_looks(whole: Episode, used: Mapping[int, Sequence[Episode]]) -> Episode:
    _, *others = used[whole.ticket.ticket_id]
    return replace(
        whole,
        nfe=whole.nfe + sum(one.nfe for one in others),
        network_evals=whole.network_evals + sum(one.network_evals for one in others),
        cost=whole.cost + sum(one.cost for one in others),
    )


def _reasons(failed: Mapping[int, FailedEpisode]) -> dict[int, str]:
    return {index: one.reason for index, one in failed.items()}
