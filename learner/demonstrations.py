"""Whose decisions offline learning imitates. Choosers for ``addiffusion.bank.replay.BankRollouts``."""

from __future__ import annotations

import torch

from addiffusion.bank.oracle import oracle_end, reward_of_ends
from addiffusion.bank.replay import Chooser
from addiffusion.bank.trajectory import Trajectory
from addiffusion.config import RewardSection
from addiffusion.records import Ticket
from addiffusion.seeds import generator


def oracle_chooser(section: RewardSection) -> Chooser:
    """Stop where the reward is best at the ticket's price, with hindsight: what ``bc`` imitates."""

    def choose(trajectory: Trajectory, ticket: Ticket) -> int:
        return int(trajectory.end_rows[oracle_end(reward_of_ends(trajectory, section, c_nfe=ticket.c_nfe))])

    return choose


def any_chooser(trajectory: Trajectory, ticket: Ticket) -> int:
    """Stop anywhere that was tried: ``marwil`` finds out by itself which of these were good ideas."""
    draws = generator(ticket.action_seed, "demonstration")
    return int(trajectory.end_rows[int(torch.randint(len(trajectory.end_rows), (), generator=draws))])
