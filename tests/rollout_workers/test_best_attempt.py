"""A redraw goes on with the better of two attempts, by the reward's weights, whoever draws the image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.records import Episode
from addiffusion.reward import potential
from rollout_workers.collector import Collector
from tests.fakes import ToyBackbone, ToyScoring
from tests.rollout_workers.rollouts import STEPS, SURE, assert_same, make_config, make_tickets, run_tickets

TRIES = 4


def _config(*, sees: str = "latent", slots: int = 4, finish_steps: int = 2) -> Config:
    tree = make_config(slots=slots, sees=sees, finish_steps=finish_steps, preset="paired").model_dump(mode="json")
    tree["policy"]["actions"] = ["continue", "stop", "redraw"]
    tree["sampler"]["max_redraws"] = TRIES - 1
    tree["reward"] |= {"drop": ["quality", "terminal"], "weights": {"clip": 2, "image_reward": 0.5}}
    tree["observation"]["previews"] = [0.5] if sees == "latent" else []
    return Config.model_validate(tree)


def _redraws(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    """Begins again wherever it may, and stops where it may not."""
    logits = np.zeros((len(phi), len(Action)), np.float32)
    logits[:, Action.REDRAW] = 2 * SURE
    logits[:, Action.CONTINUE] = SURE
    return logits


def _worth(config: Config, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    return potential(config.reward, scores)


def test_the_image_that_comes_out_is_of_the_best_attempt() -> None:
    config, tickets = _config(), make_tickets(12)
    episodes = run_tickets(config, tickets, _redraws)
    bare = config.model_copy(update={"sampler": config.sampler.model_copy(update={"max_redraws": 0})})
    kept = 0
    for one in episodes:
        seen = np.flatnonzero(np.isfinite(one.scores[:-1, 0]))
        worth = _worth(config, one.scores[seen])
        assert len(seen) == TRIES
        assert (np.diff(worth) >= 0).all(), "each decision is about the best so far"
        kept += int((np.diff(worth) == 0).sum())
    assert 0 < kept < len(episodes) * (TRIES - 1), "some were better, some were not"
    first = run_tickets(bare, tickets, _redraws)
    lone = [
        int((np.diff(_worth(config, one.scores[np.isfinite(one.scores[:, 0])][:-1])) == 0).all()) for one in episodes
    ]
    for one, alone, stayed in zip(episodes, first, lone, strict=True):
        if stayed:  # the first attempt was the best: what is returned is what it would have been without the others
            np.testing.assert_array_equal(one.image, alone.image)
            assert one.nfe > alone.nfe
    assert any(lone)


def test_which_attempt_goes_on_depends_on_no_company() -> None:
    config, tickets = _config(), make_tickets(9)
    episodes = run_tickets(config, tickets, _redraws)
    assert_same(episodes[:3], [run_tickets(config, [ticket], _redraws)[0] for ticket in tickets[:3]])


class Watched(ToyBackbone):
    """Has a cheaper decoder, and counts what goes through it."""

    previews = True

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def preview(self, z0: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
        self.sizes.append(len(z0))
        return super().preview(z0)


def test_a_preview_is_decoded_by_itself_and_scored_without_embeddings() -> None:
    """Few of many slots are seen at a time: a batch of all would be mostly padding."""
    scoring, backbone, config = ToyScoring(), Watched(), _config(slots=1)
    Collector(backbone=backbone, scoring=scoring, config=config).collect(make_tickets(1), _redraws, weight_version=1)
    assert [request.embeddings for request in scoring.requests] == [()] * TRIES + [("clip", "dino")]
    assert backbone.sizes == [1] * TRIES
    several = Watched()
    Collector(backbone=several, scoring=ToyScoring(), config=_config(slots=4)).collect(
        make_tickets(8), _redraws, weight_version=1
    )
    assert several.sizes == [1] * TRIES * 8
    seeing = Watched()
    run = Collector(backbone=seeing, scoring=ToyScoring(), config=_config(sees="clip", slots=4))
    run.collect(make_tickets(8), _redraws, weight_version=1)
    assert set(seeing.sizes) == {_config(slots=4).images_per_pass}, "where all are seen at every step, at once"


def test_with_slots_to_spare_images_wait_for_company_at_the_scorers() -> None:
    tickets = make_tickets(24)
    exact = _config(slots=4)
    spare = exact.model_copy(update={"rollout": exact.rollout.model_copy(update={"slots": 8})})
    assert spare.images_per_pass == exact.images_per_pass == 4
    found, sizes = [], []
    for config in (exact, spare):
        scoring = ToyScoring()
        collector = Collector(backbone=ToyBackbone(), scoring=scoring, config=config)
        found.append(collector.collect(tickets, _redraws, weight_version=1).episodes)
        sizes.append(np.mean([len(request.images) for request in scoring.requests]))
    assert_same(sorted(found[0], key=_number), sorted(found[1], key=_number))
    assert sizes[1] > 1.5 * sizes[0]


def _number(episode: Episode) -> int:
    return episode.ticket.ticket_id


@pytest.mark.parametrize("finish_steps", [0, 2])
def test_a_policy_that_sees_every_step_keeps_the_better_one_at_the_step_of_the_redraw(finish_steps: int) -> None:
    """With no passes after a stop, what the decision saw is what is returned: the earlier attempt's image."""
    config = _config(sees="clip", finish_steps=finish_steps)

    def once(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        """Begins again at the fourth pass and stops at the next decision that is as far."""
        nfe = np.rint(phi[:, -3] * STEPS)
        logits = np.zeros((len(phi), len(Action)), np.float32)
        logits[:, Action.CONTINUE] = SURE / 2
        logits[:, Action.REDRAW] = SURE * (nfe == 5)
        logits[:, Action.STOP] = SURE * (nfe >= 10)
        return logits

    tickets = [replace(one, keep_frames=True) for one in make_tickets(12)]
    plain = config.model_copy(update={"policy": config.policy.model_copy(update={"actions": ("continue", "stop")})})
    came_back = 0
    for one, alone in zip(run_tickets(config, tickets, once), run_tickets(plain, tickets, _stops_at(5)), strict=True):
        redraw = int(np.flatnonzero(one.actions == Action.REDRAW)[0])
        last = len(one.actions) - 1
        assert one.actions[last] == Action.STOP
        if one.steps[last] == one.steps[redraw] and (one.scores[last] == one.scores[redraw]).all():
            came_back += 1
            np.testing.assert_array_equal(one.image, alone.image)
            assert one.frames is not None
            np.testing.assert_array_equal(one.frames.images[last], one.frames.images[redraw])
            np.testing.assert_array_equal(one.scores[-1], alone.scores[-1])
            assert one.nfe == alone.nfe + 5
    assert 0 < came_back < len(tickets)


def _stops_at(count: int) -> Any:
    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.zeros((len(phi), 3), np.float32)
        logits[:, Action.CONTINUE] = SURE / 2
        logits[:, Action.STOP] = SURE * (np.rint(phi[:, -3] * STEPS) >= count)
        return logits

    return act
