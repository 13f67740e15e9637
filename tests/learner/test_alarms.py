from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from addiffusion.actions import ACTION_NAMES, FIRST_ACTIONS
from addiffusion.config.training import ALARM_NAMES, AlarmsSection
from learner.alarms import Row, alarm_metrics, possible_actions, raised_alarms
from learner.iteration import episode_statistics
from tests.learner.toy import WIDTH, toy_episode, toy_ticket

HEALTHY = {
    "only_continue_frac": 0.2, "stop_at_once_frac": 0.1, "refine_frac": 0.05, "entropy": 0.4, "explained_variance": 0.3,
}  # fmt: skip
SECTION = AlarmsSection(grace=2, patience=2)


def names(rows: list[Row], *, section: AlarmsSection = SECTION, possible: tuple[str, ...] = ACTION_NAMES) -> list[str]:
    return [alarm.name for alarm in raised_alarms(rows, section, possible=possible)]


@pytest.mark.parametrize(
    ("metric", "value", "name", "says"),
    [
        ("only_continue_frac", 1.0, "always_continue", "100.0% of the images only continue"),
        ("stop_at_once_frac", 0.995, "always_stop", "99.5% of the images stop at their first"),
        ("refine_frac", 0.0, "never_refine", "0.00% of the decisions refine"),
        ("leap_frac", 0.0005, "never_tried", "0.05% of the decisions are leap"),
        ("entropy", 0.003, "entropy_floor", "0.0030 nats"),
        ("explained_variance", -2.0, "value_useless", "explains -2.00"),
    ],
)
def test_each_sign_raises_its_own_alarm(metric: str, value: float, name: str, says: str) -> None:
    rows: list[Row] = [HEALTHY, HEALTHY, {**HEALTHY, metric: value}, {**HEALTHY, metric: value}]
    (alarm,) = raised_alarms(rows, SECTION, possible=ACTION_NAMES)
    assert alarm.name == name
    assert says in alarm.message
    assert alarm_metrics([alarm]) == {f"alarm_{other}": float(other == name) for other in ALARM_NAMES}


def test_an_alarm_needs_patience_and_grace() -> None:
    bad = {**HEALTHY, "entropy": 0.0}
    assert names([bad] * 3) == []
    assert names([bad] * 4) == ["entropy_floor"]
    assert names([bad, bad, bad, HEALTHY, bad]) == []
    assert names([HEALTHY, HEALTHY, HEALTHY, bad, bad]) == ["entropy_floor"]


def test_never_refine_means_nothing_where_refine_is_not_allowed() -> None:
    rows: list[Row] = [{**HEALTHY, "refine_frac": 0.0}] * 4
    assert names(rows, possible=FIRST_ACTIONS[:2]) == []


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_is_not_a_number_raises_nothing(value: Any) -> None:
    assert names([{**HEALTHY, "entropy": value}] * 4) == []
    assert names([{"iteration": 1}] * 4) == []


def test_shares_count_images_not_decisions() -> None:
    patient = [toy_episode(toy_ticket(), phi=np.zeros((9, WIDTH), np.float32), actions=[0] * 9, rewards=[0.0] * 9)]
    hasty = [toy_episode(toy_ticket(), phi=np.zeros((1, WIDTH), np.float32), actions=[1], rewards=[0.0])]
    found = episode_statistics([*patient, *hasty, *hasty])
    assert found["only_continue_frac"] == pytest.approx(1 / 3)
    assert found["stop_at_once_frac"] == pytest.approx(2 / 3)
    assert found["continue_frac"] == pytest.approx(9 / 11)


def test_a_masked_refine_is_not_possible() -> None:
    def episode(refine_logit: float) -> Any:
        logits = np.array([[1.0, 0.0, refine_logit]], np.float32)
        return toy_episode(
            toy_ticket(), phi=np.zeros((1, WIDTH), np.float32), actions=[1], rewards=[0.0], logits=logits
        )

    assert possible_actions([episode(-30.0)]) == {"continue", "stop", "refine"}
    assert possible_actions([episode(-1e9), episode(float("-inf"))]) == {"continue", "stop"}
