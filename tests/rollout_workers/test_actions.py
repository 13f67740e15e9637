"""Episodes of policies that may leap, go unguided and draw again; tickets with a script; all as records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from addiffusion.actions import ACTION_NAMES, FIRST_ACTIONS, Action
from addiffusion.config import Config
from addiffusion.errors import ContractError
from addiffusion.policy import FORBIDDEN_LOGIT, PolicyNetwork, prior_of
from addiffusion.reward import reference_of
from learner.alarms import possible_actions
from learner.iteration import episode_statistics
from rollout_workers.collector import Collector
from rollout_workers.recorder import EpisodeRecorder, read_episodes
from tests.fakes import ToyBackbone, ToyScoring
from tests.rollout_workers.rollouts import (
    FINISH,
    STEPS,
    assert_same,
    hashed_policy,
    make_config,
    make_tickets,
    run_tickets,
)

C, S, L, U, D = Action.CONTINUE, Action.STOP, Action.LEAP, Action.UNGUIDED, Action.REDRAW


def make_all(**options: Any) -> Config:
    config = make_config(**options)
    tree = config.model_dump(mode="json")
    tree["policy"]["actions"], tree["sampler"]["leap_steps"] = list(ACTION_NAMES), 2
    return Config.model_validate(tree)


def any_of_six(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([[np.sin(place * row.sum() + place) for place in (31, 17, 7, 5, 3, 41)] for row in phi])


def test_every_action_is_taken_and_episodes_depend_on_no_company(tmp_path: Path) -> None:
    config, tickets = make_all(slots=5, rows=5), make_tickets(16)
    episodes = run_tickets(config, tickets, any_of_six)
    assert {action for one in episodes for action in one.actions.tolist()} == set(Action)
    assert_same(episodes[:4], [run_tickets(config, [ticket], any_of_six)[0] for ticket in tickets[:4]])
    for one in episodes:
        unguided = int((one.actions == U).sum())
        assert one.cost == one.nfe - unguided / 2 == one.network_evals / 2
        assert one.attempts.max() <= config.sampler.max_redraws
        assert (np.diff(one.steps)[one.actions[:-1] == D] <= 0).all(), "it is drawn from the beginning"
        np.testing.assert_allclose(-one.terms[:, 1].sum() / 0.01, one.cost - one.steps[0] - 1, atol=1e-4)
        assert (one.logits[one.steps == STEPS - 1, L] == FORBIDDEN_LOGIT).all()
    EpisodeRecorder(tmp_path, name="worker").append(episodes)
    assert_same([*read_episodes(tmp_path)], episodes)
    found = episode_statistics(episodes)
    assert sum(found[f"{name}_frac"] for name in ACTION_NAMES) == pytest.approx(1)
    assert found["redraw_frac"] > 0
    assert possible_actions(episodes) == set(ACTION_NAMES)


def test_a_latent_policy_that_previews_sees_a_few_images_and_draws_again_only_there() -> None:
    plain = make_all(slots=5, rows=5, sees="latent", preset="paired")
    seeing = Config.model_validate(
        {**plain.model_dump(), "observation": {"kind": "latent", "timestep_width": 8, "previews": (0.3, 0.6)}}
    )
    references = [reference_of(episode) for episode in run_tickets(plain, make_tickets(16, forced=C))]
    tickets = [replace(one, reference=ref) for one, ref in zip(make_tickets(16), references, strict=True)]
    scoring = ToyScoring()
    collector = Collector(backbone=ToyBackbone(), scoring=scoring, config=seeing)
    episodes = collector.collect(tickets, any_of_six, weight_version=1).episodes
    seen = [np.isfinite(one.scores[:-1, 0]) for one in episodes]
    assert sum(len(request.images) for request in scoring.requests) == 16 + sum(int(one.sum()) for one in seen)
    assert episode_statistics(episodes)["redraw_frac"] > 0
    for one, shown in zip(episodes, seen, strict=True):
        assert shown[one.actions == D].all(), "whoever begins again has seen it"
        assert (one.logits[~shown, D] == FORBIDDEN_LOGIT).all()
        first = {attempt: one.steps[shown & (one.attempts == attempt)] for attempt in set(one.attempts.tolist())}
        assert all(len(steps) == 0 or steps[0] >= 0.3 * STEPS for steps in first.values())
    assert_same(episodes[:4], [run_tickets(seeing, [ticket], any_of_six)[0] for ticket in tickets[:4]])


def test_the_default_policy_has_three_logits_and_no_other_actions() -> None:
    episodes = run_tickets(make_config(), make_tickets(4), hashed_policy)
    assert {one.logits.shape[1] for one in episodes} == {len(FIRST_ACTIONS)}
    assert "leap_frac" not in episode_statistics(episodes)
    with pytest.raises(ContractError, match=r"must return logits of shape \(3, 3\), not \(3, 6\)"):
        run_tickets(make_config(), make_tickets(1), any_of_six)


def test_a_script_is_followed_where_it_can_be_and_asks_nobody() -> None:
    script = (D, D, U, L, C, U, L, L)
    config = make_all()
    (episode,) = run_tickets(config, make_tickets(1, forced=C, script=script))
    # Step 2 goes unguided to 3, leaps to 5, goes unguided to 6, and can't leap over 7.
    assert (episode.nfe, episode.cost, len(episode.actions)) == (STEPS - 1, STEPS - 2, 0)
    (again,) = run_tickets(config, make_tickets(1, forced=C, script=(C, C, C, D, S)))
    assert again.nfe == 2 * 4 + 5 + FINISH, "two redraws after 4 passes, then no more"
    (stopped,) = run_tickets(make_config(), make_tickets(1, forced=C, script=(C, C, C, L, S)))
    assert stopped.nfe == 5 + FINISH, "no leap where sampler.leap_steps is null"


def test_a_policy_of_six_begins_near_its_prior_and_of_three_as_ever() -> None:
    assert prior_of((0.88, 0.06, 0.06), 3) == [0.88, 0.06, 0.06]
    assert sum(prior_of((0.88, 0.06, 0.06), 6)) == pytest.approx(1)
    assert prior_of((0.62, 0.05, 0.06, 0.2, 0.02, 0.05), 3) == pytest.approx([0.62 / 0.73, 0.05 / 0.73, 0.06 / 0.73])
    network = PolicyNetwork(4, (8,), actions=("continue", "stop", "redraw"))
    assert network.forbidden.tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"policy": {"actions": ["continue", "stop", "jump"]}}, "policy.actions.2"),
        ({"policy": {"actions": ["continue", "stop", "leap"]}}, "needs sampler.leap_steps: set it to 2 or 4"),
        (
            {"policy": {"actions": ["continue", "stop", "unguided"]}, "backbone": {"guidance_scale": 1.0}},
            "nothing is guided at backbone.guidance_scale=1: raise it above 1",
        ),
        ({"policy": {"prior": [0.5, 0.2, 0.2, 0.1]}}, "prior must have 3 probabilities, or 6 for all actions"),
    ],
)
def test_actions_that_can_not_be_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Config.model_validate(wrong)
