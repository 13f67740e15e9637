"""Tickets with settings of their own: mixed in one batch, capped, and trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.policy import FORBIDDEN_LOGIT, masked_like
from addiffusion.records import Episode, Reference
from addiffusion.setting import Setting
from learner.loss import LossInputs, ppo_loss
from learner.settings import drawn_setting
from tests.rollout_workers.rollouts import (
    FINISH,
    WARMUP,
    K,
    always,
    assert_same,
    hashed_policy,
    make_collector,
    make_config,
    make_tickets,
    refuse_to_act,
    run_tickets,
)

SETTINGS = (
    None,
    Setting(num_steps=5, guidance_scale=1.0),
    Setting(num_steps=12, guidance_scale=7.0, negative_prompt="ugly toys"),
    Setting(finish_steps=0),
)


def test_a_mixed_batch_gives_each_ticket_the_episode_it_has_alone() -> None:
    tickets = [replace(one, setting=SETTINGS[one.ticket_id % 4]) for one in make_tickets(8)]
    config = make_config(slots=5, rows=5)
    together = run_tickets(config, tickets)
    assert_same(together, [run_tickets(config, [ticket])[0] for ticket in tickets])
    for episode in together:
        halves = 1 if episode.ticket.setting is SETTINGS[1] else 2
        assert episode.network_evals == halves * episode.nfe == 2 * episode.cost


@pytest.mark.parametrize("sees", ["clip", "latent"])
def test_the_policy_sees_the_setting_where_it_is_asked_for(sees: str) -> None:
    plain = make_config(slots=4, preset="paired", sees=sees)
    plain = plain.model_copy(update={"reward": plain.reward.model_copy(update={"drop": ("quality", "terminal")})})
    config = plain.model_copy(update={"observation": plain.observation.model_copy(update={"setting": True})})
    reference = Reference(scores=np.zeros(3, np.float32), dino_embedding=np.zeros(6, np.float32))
    tickets = [replace(one, setting=SETTINGS[one.ticket_id % 4], reference=reference) for one in make_tickets(4)]
    seen, blind = (run_tickets(one, tickets, always(Action.CONTINUE)) for one in (config, plain))
    for with_setting, without in zip(seen, blind, strict=True):
        names = ("guidance_scale", "log_steps", "solver_memory", "cost_left")
        place = slice(with_setting.phi.shape[1] - 4 - 4 - (4 if sees == "clip" else 0), None)
        shown = dict(zip(names, with_setting.phi[0, place][:4].tolist(), strict=True))
        setting = with_setting.ticket.setting or Setting()
        assert shown["guidance_scale"] == pytest.approx((setting.guidance_scale or 3.5) / 7.5)
        assert shown["log_steps"] == pytest.approx(np.log2((setting.num_steps or 8) / 50))
        assert (shown["solver_memory"], shown["cost_left"]) == (0, 1)
        assert with_setting.phi.shape[1] == without.phi.shape[1] + 4


def test_the_price_is_on_what_the_network_computed() -> None:
    (ticket,) = make_tickets(1, setting=SETTINGS[1])
    (episode,) = run_tickets(make_config(), [ticket], always(Action.CONTINUE))
    assert episode.cost == 2.5
    efficiency = episode.terms[:, 1]
    np.testing.assert_allclose(efficiency, -0.01 * 0.5 * episode.nfe_spent, atol=1e-7)


@pytest.mark.parametrize("explore", [True, False])
def test_actions_that_could_not_be_paid_have_no_probability(explore: bool) -> None:
    least = WARMUP + 1 + FINISH
    for cap in (least, least + 1.5, least + K + 1):
        config = make_config()
        sampler = config.sampler.model_copy(update={"max_cost": cap})
        episodes = run_tickets(
            config.model_copy(update={"sampler": sampler}), make_tickets(6, explore=explore), hashed_policy
        )
        assert any((episode.logits == FORBIDDEN_LOGIT).any() for episode in episodes)
        for episode in episodes:
            assert episode.cost <= cap
            forbidden = episode.logits == FORBIDDEN_LOGIT
            assert not forbidden[:, Action.STOP].any()
            assert not forbidden[np.arange(len(episode.actions)), episode.actions].any()
            log_probs = episode.logits - np.log(np.exp(episode.logits).sum(axis=1, keepdims=True))
            taken = log_probs[np.arange(len(episode.actions)), episode.actions]
            np.testing.assert_allclose(episode.log_prob, taken, atol=1e-6)
            assert (np.isclose(episode.log_prob, 0) == (forbidden.sum(axis=1) == 2)).all()


def test_a_reference_knows_no_cap() -> None:
    config = make_config()
    capped = config.model_copy(update={"sampler": config.sampler.model_copy(update={"max_cost": 5.0})})
    forced = make_tickets(2, forced=Action.CONTINUE)
    assert_same(run_tickets(capped, forced, refuse_to_act), run_tickets(config, forced, refuse_to_act))


def test_a_setting_that_fits_no_image_fails_its_ticket_for_good_and_no_other() -> None:
    tickets = make_tickets(3)
    tickets[0] = replace(tickets[0], setting=Setting(num_steps=2))
    tickets[2] = replace(tickets[2], setting=Setting(max_cost=1.0))
    collected = make_collector(make_config(slots=1)).collect(tickets, hashed_policy, weight_version=1)
    assert [episode.ticket.ticket_id for episode in collected.episodes] == [1]
    assert [(one.ticket.ticket_id, one.final) for one in collected.failed] == [(0, True), (2, True)]
    assert "num_steps=2 leaves no decision" in collected.failed[0].reason
    assert "max_cost=1 is less than the 5" in collected.failed[1].reason


def test_the_loss_sees_the_mask() -> None:
    """With the weights that acted every ratio is 1, and forbidden actions have neither gradient nor entropy."""
    config = make_config()
    sampler = config.sampler.model_copy(update={"max_cost": 5.5})
    episode: Episode = run_tickets(config.model_copy(update={"sampler": sampler}), make_tickets(1))[0]
    acted = torch.from_numpy(episode.logits)
    logits = torch.from_numpy(hashed_policy(episode.phi)).requires_grad_()
    count = len(acted)
    loss = ppo_loss(
        LossInputs(
            logits=masked_like(logits, acted),
            values=torch.zeros(count),
            actions=torch.from_numpy(episode.actions),
            log_prob=torch.from_numpy(episode.log_prob),
            advantages=torch.ones(count),
            value_targets=torch.zeros(count),
            weights=torch.ones(count),
        ),
        clip=0.2,
        value_coeff=0.5,
        entropy_coeff=0.01,
    )
    assert float(loss.approx_kl.detach()) == pytest.approx(0, abs=1e-6)
    loss.total.backward()
    assert logits.grad is not None
    assert (logits.grad[acted == FORBIDDEN_LOGIT] == 0).all()


def test_training_images_have_settings_from_the_ranges() -> None:
    def drawn(**changes: dict[str, object]) -> list[Setting | None]:
        config = Config.model_validate(changes)
        return [drawn_setting(config, seed) for seed in range(1000)]

    assert drawn() == [None] * 1000
    found = drawn(
        sampler={"num_steps_range": [10, 50], "solvers": ["ddim", "dpm++2m"]},
        backbone={"guidance_scale_range": [1.0, 8.0]},
    )
    steps = np.array([one.num_steps for one in found if one is not None])
    scales = np.array([one.guidance_scale for one in found if one is not None])
    assert (steps.min(), steps.max()) == (10, 50)
    assert abs(np.median(steps) - np.sqrt(10 * 50)) < 4, "log-uniform"
    assert 1 <= scales.min() < 1.3
    assert 7.7 < scales.max() <= 8
    assert {one.solver for one in found if one is not None} == {"ddim", "dpm++2m"}
    assert found == drawn(
        sampler={"num_steps_range": [10, 50], "solvers": ["ddim", "dpm++2m"]},
        backbone={"guidance_scale_range": [1.0, 8.0]},
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": {"num_steps_range": [50, 10]}}, "num_steps_range must not fall"),
        ({"sampler": {"num_steps_range": [3, 10]}}, "warmup_steps must be smaller than the fewest steps"),
        ({"sampler": {"max_cost": 5}}, "max_cost must be at least 12"),
        ({"sampler": {"solvers": []}}, "at least 1"),
        ({"backbone": {"guidance_scale_range": [7, 2]}}, "guidance_scale_range must not fall"),
        ({"backbone": {"guidance_scale": 1, "guidance_scale_range": [1, 2]}}, "needs a guidance_scale above 1"),
        (
            {"sampler": {"num_steps_range": [9, 20]}, "warm_start": {"bank": "bank"}},
            "warm_start.bank knows one setting of each image",
        ),
    ],
)
def test_ranges_and_caps_that_fit_nothing_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Config.model_validate(changes)
