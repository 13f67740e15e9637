"""Warm starts on paths whose best stop is known."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.config.bank import WarmStartSection
from addiffusion.observation.layout import Layout, clip_layout
from addiffusion.observation.scalars import log_price
from addiffusion.policy import PolicyNetwork, ValueNetwork
from launch.training.warm_start import report_table
from learner.stopping import Paths
from learner.warm_start import Networks, WarmStart, WarmStartReport

LAYOUT: Layout = clip_layout(clip_width=4, timestep_width=2)
DECISIONS, NEED = 8, (1, 3, 5)
SECTION = WarmStartSection(clone_epochs=10, improve_epochs=25, batch_size=8, lr=2.0e-2, hide_share=0.0)


def paths_of(count: int) -> Paths:
    """Quality comes in one jump, at a decision that the prompt's embedding tells."""
    kinds = torch.arange(count) % len(NEED)
    steps = torch.arange(DECISIONS)
    phi = torch.zeros(count, DECISIONS, LAYOUT.width)
    phi[:, :, LAYOUT.slice("clip_text").start] = kinds[:, None].float() - 1
    phi[:, :, LAYOUT.slice("timestep").start] = steps / DECISIONS
    need = torch.tensor(NEED)[kinds]
    return Paths(
        phi=phi,
        quality=(steps >= need[:, None]).float(),
        passes=(DECISIONS - 1 - steps).clamp_max(2).float().expand(count, DECISIONS),
        tiers=kinds + 1,
    )


def warmed(
    *, actions: tuple[str, ...] = ("continue", "stop"), prices: tuple[float, float] = (0.05, 0.05), seed: int = 0
) -> tuple[Networks, WarmStartReport]:
    torch.manual_seed(0)
    policy = PolicyNetwork(LAYOUT.width, (32,), prior=(0.88, 0.06, 0.06), actions=actions)
    networks = Networks(policy=policy, value=ValueNetwork(LAYOUT.width, (32,)))
    report = WarmStart(networks, paths_of(60), layout=LAYOUT, section=SECTION, prices=prices, seed=seed).run()
    return networks, report


def test_it_learns_to_stop_where_the_quality_has_come() -> None:
    _, report = warmed()
    assert report.oracle_share > 0.95
    assert report.beyond_fixed > 0.9
    assert report.tier_spearman > 0.9
    assert report.full_reward <= report.fixed_reward < report.oracle_reward


def test_the_same_seed_gives_the_same_weights() -> None:
    (first, _), (second, _) = warmed(), warmed()
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_value_network_knows_what_the_policy_is_worth() -> None:
    networks, report = warmed()
    paths = paths_of(60)
    paths.phi[:, :, LAYOUT.price_column] = float(log_price(0.05))
    with torch.no_grad():
        assert float(networks.value(paths.phi)[:, 0].mean()) == pytest.approx(report.train_reward, abs=0.1)


def test_one_policy_heeds_the_price_it_is_shown() -> None:
    networks, _ = warmed(prices=(0.001, 0.6))
    paths = paths_of(3)
    lengths = []
    for price in (0.002, 0.5):
        paths.phi[:, :, LAYOUT.price_column] = float(log_price(price))
        with torch.no_grad():
            logits = networks.policy(paths.phi)
        stops = logits[..., Action.STOP] > logits[..., Action.CONTINUE]
        stops[:, -1] = True
        lengths.append(stops.int().argmax(1).float().mean())
    assert lengths[1] + 1 < lengths[0]


def test_refine_stays_possible_where_it_is_allowed() -> None:
    networks, report = warmed(actions=("continue", "stop", "refine"))
    with torch.no_grad():
        refine = torch.softmax(networks.policy(paths_of(6).phi), -1)[..., Action.REFINE]
    assert 0.01 < float(refine.mean()) < 0.15
    assert report.oracle_share > 0.9


def test_where_an_oracle_gains_nothing_there_is_no_share() -> None:
    """Equal images at no price: whoever stops wherever earns the same."""
    same = replace(paths_of(60), quality=torch.zeros(60, DECISIONS))
    policy = PolicyNetwork(LAYOUT.width, (8,), actions=("continue", "stop"))
    networks = Networks(policy=policy, value=ValueNetwork(LAYOUT.width, (8,)))
    section = SECTION.model_copy(update={"clone_epochs": 1, "improve_epochs": 0})
    free = replace(same, passes=torch.zeros(60, DECISIONS) - torch.arange(DECISIONS))
    report = WarmStart(networks, free, layout=LAYOUT, section=section, prices=(0.05, 0.05), seed=0).run()
    assert report.oracle_reward == pytest.approx(report.full_reward, abs=1e-6)
    assert report.oracle_share is None
    assert report.beyond_fixed is None
    assert report.as_json()["oracle_share"] is None
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(report_table(report))
    assert "%" not in console.export_text()
