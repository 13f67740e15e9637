"""An episode that records its stops knows what each of its possible ends would have been."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.records import METRIC_NAMES, Episode, RecordAllStops, StopRecords, Ticket
from rollout_workers.batch import PolicyFunction
from rollout_workers.collector import Collector
from tests.fakes import UNSCORABLE, ToyBackbone, ToyScoring, make_prompt
from tests.rollout_workers.toy_run import make_config, make_tickets

STEPS, WARMUP = 8, 2
DECISIONS = STEPS - WARMUP
SURE = 50.0


def _config(finish_steps: int = 2, **rollout: object) -> Config:
    return make_config(
        sampler={"num_steps": STEPS, "warmup_steps": WARMUP, "finish_steps": finish_steps},
        rollout={"slots": 4, **rollout},
    )


def _stop_at(row: int) -> PolicyFunction:
    """Stop at the decision of this number."""

    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        late = phi[:, -4] > (WARMUP + row - 0.5) / STEPS  # the step ratio
        return np.where(late[:, None], [0.0, SURE, 0.0], [SURE, 0.0, 0.0]).astype(np.float32)

    return act


def _never(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    raise AssertionError("recording stops asks no policy")


def _episodes(config: Config, tickets: list[Ticket], act: PolicyFunction) -> tuple[Episode, ...]:
    collected = Collector(backbone=ToyBackbone(), scoring=ToyScoring(), config=config).collect(
        tickets, act, weight_version=0
    )
    assert not collected.failed
    return collected.episodes


def _recorded(config: Config, *, count: int = 5, stride: int = 1) -> tuple[Episode, ...]:
    record_stops = RecordAllStops(stride=stride, metrics=METRIC_NAMES)
    tickets = make_tickets(count, forced=Action.CONTINUE, explore=False, record_stops=record_stops)
    return _episodes(config, tickets, lambda phi: np.zeros((len(phi), 3), np.float32))


def _found(episode: Episode) -> StopRecords:
    assert episode.stop_records is not None
    return episode.stop_records


@pytest.mark.parametrize("finish_steps", [0, 2])
@pytest.mark.parametrize("slots", [3, 6])
def test_tried_stops_are_bitwise_those_of_episodes_that_stop(finish_steps: int, slots: int) -> None:
    config = _config(finish_steps, slots=slots, rows=6)
    recorded = _recorded(config)
    for row in range(DECISIONS):
        stopped = _episodes(config, make_tickets(5, explore=False), _stop_at(row))
        for one, episode in zip(recorded, stopped, strict=True):
            found = _found(one)
            assert found.stop_rows.tolist() == list(range(DECISIONS))
            np.testing.assert_array_equal(one.phi[: row + 1], episode.phi)
            np.testing.assert_array_equal(one.scores[: row + 1], episode.scores[:-1])
            np.testing.assert_array_equal(found.stop_scores[row], episode.scores[-1])
            np.testing.assert_array_equal(found.stop_dino[row], episode.final_dino)
            assert found.stop_nfe[row] == episode.nfe


def test_what_is_tried_on_the_way_changes_nothing() -> None:
    config = _config()
    plain = _episodes(config, make_tickets(5, explore=False), _stop_at(DECISIONS))
    for one, episode in zip(_recorded(config), plain, strict=True):
        np.testing.assert_array_equal(one.phi, episode.phi)
        np.testing.assert_array_equal(one.scores, episode.scores)
        np.testing.assert_array_equal(one.image, episode.image)
        assert (one.nfe, one.steps.tolist()) == (STEPS, episode.steps.tolist())


def test_only_every_nth_stop_is_tried() -> None:
    assert _found(_recorded(_config(), count=1, stride=4)[0]).stop_rows.tolist() == [0, 4]


def test_metrics_are_those_of_the_images() -> None:
    (one,) = _recorded(_config(), count=1)
    found = _found(one)
    assert found.metrics.shape == (DECISIONS + 1, len(METRIC_NAMES))
    np.testing.assert_array_equal(found.metrics[-1, 0], one.scores[-1, 0] ** 2)
    np.testing.assert_array_equal(found.stop_metrics[:, 0], found.stop_scores[:, 0] ** 2)


def test_with_the_latent_observation_only_returned_images_are_scored() -> None:
    config = _config().model_copy(update={"observation": _config().observation.model_copy(update={"kind": "latent"})})
    (one,) = _recorded(config, count=1)
    assert np.isnan(one.scores[:-1]).all()
    assert np.isfinite(_found(one).stop_scores).all()


def test_stop_records_of_an_episode_that_is_not_full_length_fail_its_ticket() -> None:
    (ticket,) = make_tickets(1, record_stops=RecordAllStops())
    unscorable = replace(ticket, ticket_id=1, prompt=make_prompt(1, UNSCORABLE), forced=Action.CONTINUE)
    collected = Collector(backbone=ToyBackbone(), scoring=ToyScoring(), config=_config()).collect(
        [ticket, unscorable], _never, weight_version=0
    )
    assert [failed.ticket.ticket_id for failed in collected.failed] == [0, 1]
    assert "need forced=CONTINUE" in collected.failed[0].reason
