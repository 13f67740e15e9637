"""The warm start of a run: from a trajectory bank to the learner's first weights."""

from __future__ import annotations

from collections.abc import Callable

from addiffusion.bank.archive import Bank
from addiffusion.bank.oracle import gain_share
from addiffusion.bank.replay import BankRollouts, any_chooser, oracle_chooser
from addiffusion.config import Config
from addiffusion.policy import PolicyNetwork, ValueNetwork
from evaluation.tables import Table
from learner.state import Learner, LearnerState
from learner.stopping import stack
from learner.warm_start import Networks, WarmStart, WarmStartReport


def demonstrations_of(bank: Bank, config: Config) -> BankRollouts | None:
    """Episodes for an offline algorithm to imitate; None for one that learns from its own."""
    match config.ppo.algorithm:
        case "bc":
            return BankRollouts(bank, config, chooser=oracle_chooser(config.reward))
        case "marwil":
            return BankRollouts(bank, config, chooser=any_chooser)
        case _:
            return None


def warm_epochs(config: Config) -> int:
    """How often ``start_warm`` calls its ``advance``."""
    return config.warm_start.clone_epochs + config.warm_start.improve_epochs


def start_warm(learner: Learner, bank: Bank, config: Config, *, advance: Callable[[int], None]) -> WarmStartReport:
    """Give ``learner`` the networks that a warm start on ``bank`` makes of its own; its optimizer stays fresh.

    Args:
        learner: untrained; it gets the networks.
        bank: trajectories to learn from.
        config: of the run.
        advance: told of each epoch that is done: 1 of ``warm_epochs``.

    Raises:
        ConfigError: the reward pays for more than the returned image.
    """
    untrained, width = learner.state(), bank.plan.layout.width
    networks = Networks(
        policy=PolicyNetwork(width, config.policy.hidden, actions=config.policy.actions),
        value=ValueNetwork(width, config.policy.hidden),
    )
    networks.load((untrained.policy, untrained.value))
    warm = WarmStart(
        networks,
        stack(bank.trajectories, config.reward),
        layout=bank.plan.layout,
        section=config.warm_start,
        prices=config.reward.prices,
        seed=config.run.seed,
    )
    report = warm.run(advance)
    policy, value = networks.state()
    learner.load_state(LearnerState(policy=policy, value=value, optimizer=untrained.optimizer))
    return report


def report_table(report: WarmStartReport) -> Table:
    """The warm start beside its opponents, on the held-out trajectories of the bank."""
    table = Table(title="warm start, on held-out trajectories of the bank")
    for name in ("stops", "reward", "share of oracle's gain"):
        table.add_column(name, justify="left" if name == "stops" else "right")
    rows = (
        ("never", report.full_reward),
        ("all at the best step", report.fixed_reward),
        ("by the policy", report.reward),
        ("by an oracle", report.oracle_reward),
    )
    for name, reward in rows:
        share = gain_share(reward, report.full_reward, report.oracle_reward)
        table.add_row(name, f"{reward:+.4f}", "-" if share is None else f"{share:.0%}")
    return table
