"""Figures: right content, right size, whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from addiffusion.actions import Action
from evaluation.report.figures import action_shares, column
from evaluation.report.film import chosen_frames, plot_film_strips
from evaluation.report.training_plots import plot_action_mix, plot_learning_curves, plot_stopping_times
from tests.evaluation.toy_episodes import toy_episode

C, S, R = Action.CONTINUE, Action.STOP, Action.REFINE


def size_of(path: Path | None) -> tuple[int, int]:
    assert path is not None
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert np.asarray(image).std() > 5  # something is on it
        return image.size


def test_learning_curves(tmp_path: Path) -> None:
    names = ("return", "term_quality", "nfe", "continue_frac", "score_clip", "entropy", "vf_loss")
    rows = [{"iteration": float(i), **dict.fromkeys(names, i / 10)} for i in range(1, 9)]
    width, height = size_of(plot_learning_curves(rows, tmp_path / "plots" / "a.png"))
    assert width > 1500
    assert height > 800
    assert [file.name for file in (tmp_path / "plots").iterdir()] == ["a.png"]


def test_a_run_of_one_iteration_and_of_none_can_be_drawn(tmp_path: Path) -> None:
    one = size_of(plot_learning_curves([{"iteration": 1.0, "return": 0.5}], tmp_path / "one.png"))
    assert size_of(plot_learning_curves([], tmp_path / "none.png")) == one


def test_a_missing_or_null_metric_is_a_gap() -> None:
    values = column([{"nfe": 3.0}, {"nfe": None}, {}], "nfe")
    assert values[0] == 3
    assert np.isnan(values[1:]).all()


def test_action_shares_count_all_images_at_each_step() -> None:
    episodes = [toy_episode(0, actions=[C, S]), toy_episode(1, actions=[R, C, S]), toy_episode(2, actions=[S])]
    shares = action_shares(episodes, num_steps=7)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    np.testing.assert_allclose(shares[:, 3], [1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0])  # the last: no decision
    np.testing.assert_allclose(shares[:, 5], [0, 1 / 3, 0, 0, 0, 0, 2 / 3])
    np.testing.assert_allclose(shares[:, 0], [0, 0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize("tiers", [(0,), (1, 2, 3)])
def test_action_mix_and_stopping_times(tmp_path: Path, tiers: tuple[int, ...]) -> None:
    episodes = [toy_episode(n, actions=[C] * (n % 4) + [S], tier=tiers[n % len(tiers)]) for n in range(12)]
    assert size_of(plot_action_mix(episodes, tmp_path / "mix.png", num_steps=10))[0] > 900
    assert size_of(plot_stopping_times(episodes, tmp_path / "stop.png", num_steps=10))[0] > 900


def test_film_strips(tmp_path: Path) -> None:
    short = toy_episode(0, actions=[C, R, S], frames=True)
    long = toy_episode(1, actions=[C] * 30 + [S], frames=True)
    one = size_of(plot_film_strips([short], tmp_path / "one.png"))
    two = size_of(plot_film_strips([short, long, toy_episode(2)], tmp_path / "two.png"))
    assert two[0] > one[0]  # more frames
    assert two[1] > 1.7 * one[1]  # one more strip; the episode without frames is left out


def test_no_frames_no_file(tmp_path: Path) -> None:
    assert plot_film_strips([toy_episode(0)], tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 40])
def test_chosen_frames_are_few_and_keep_what_matters(count: int) -> None:
    actions = np.array([C] * (count - 1) + [S])
    chosen = chosen_frames(actions)
    assert len(chosen) == min(9, count + 1)
    assert chosen == sorted(set(chosen))
    assert {0, count - 1, count} <= set(chosen)  # first, stop, result


def test_chosen_frames_show_refines() -> None:
    actions = np.array([C] * 40)
    actions[[7, 23]] = R
    assert {7, 23} <= set(chosen_frames(actions))
