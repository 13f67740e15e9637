from __future__ import annotations

from collections import Counter

import pytest

from addiffusion.config.training import CurriculumSection
from addiffusion.errors import ConfigError
from addiffusion.records import Prompt
from learner.curriculum import check_curriculum, curriculum_stages
from learner.tickets import PoolEntry, TicketLedger

PROMPTS = [Prompt(prompt_id=number, text=f"prompt {number}", tier=1 + number % 3) for number in range(12)]


def ledger(**section: int) -> TicketLedger:
    pool = [PoolEntry(prompt=prompt, seed=prompt.prompt_id) for prompt in PROMPTS]
    stages = curriculum_stages(CurriculumSection.model_validate(section))
    return TicketLedger(pool, run_seed=3, batch_size=8, prices=(0.01, 0.01), max_reissues=0, stages=stages)


def tiers(book: TicketLedger, iteration: int) -> set[int]:
    return {ticket.prompt.tier for ticket in book.tickets(iteration)}


def test_simple_then_mixed_then_full() -> None:
    book = ledger(simple_iterations=2, mixed_iterations=3)
    assert [tiers(book, iteration) for iteration in range(7)] == [{1}] * 2 + [{1, 2}] * 3 + [{1, 2, 3}] * 2


def test_every_entry_of_a_stage_is_drawn_equally_often() -> None:
    book = ledger(simple_iterations=3, mixed_iterations=2)
    for iterations, size in ((range(3), 4), (range(3, 5), 8), (range(5, 8), 12)):
        drawn = Counter(ticket.seed for iteration in iterations for ticket in book.tickets(iteration))
        assert len(drawn) == size
        assert set(drawn.values()) == {8 * len(iterations) // size}


def test_ticket_ids_run_on_and_no_curriculum_changes_nothing() -> None:
    assert [ticket.ticket_id for ticket in ledger(simple_iterations=1).tickets(2)] == list(range(16, 24))
    pool = [PoolEntry(prompt=prompt, seed=prompt.prompt_id) for prompt in PROMPTS]
    plain = TicketLedger(pool, run_seed=3, batch_size=8, prices=(0.01, 0.01), max_reissues=0)
    assert ledger().tickets(5) == plain.tickets(5)


def test_a_stage_without_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"curriculum\.simple_iterations needs .* tiers \[1\], but .* tiers \[3\]"):
        check_curriculum(CurriculumSection(simple_iterations=1), [prompt for prompt in PROMPTS if prompt.tier == 3])
    check_curriculum(CurriculumSection(), PROMPTS)
