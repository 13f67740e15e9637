"""Plots are drawn one at a time, and end no training."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from launch.training import plotter as module
from launch.training.plotter import Plotter

ROWS = [{"iteration": 1.0, "return": 0.5}]


class Slow:
    """A drawing that waits to be let go, and counts how many are drawn at once."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.at_once = self.most = self.count = 0

    def __call__(self, *_: object, **__: object) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.count += 1
        self.begun.set()
        assert self.go.wait(30)
        self.at_once -= 1


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    drawing = Slow()
    monkeypatch.setattr(module, "plot_learning_curves", drawing)
    monkeypatch.setattr(module, "plot_action_mix", lambda *_, **__: None)
    return drawing


def test_the_last_drawing_waits_for_the_one_under_way(tmp_path: Path, slow: Slow) -> None:
    with Plotter(tmp_path, num_steps=8, every_s=0.0) as plotter:
        plotter.offer(ROWS, [])
        assert slow.begun.wait(30)
        plotter.offer(ROWS, [])  # busy: left out
        threading.Timer(0.3, slow.go.set).start()
        plotter.finish(ROWS, [])
        assert (slow.count, slow.most, slow.at_once) == (2, 1, 0)


def test_a_drawing_that_hangs_holds_nobody(tmp_path: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    with Plotter(tmp_path, num_steps=8, every_s=0.0) as plotter:
        plotter.offer(ROWS, [])
        assert slow.begun.wait(30)
        plotter.finish(ROWS, [])
    slow.go.set()


def test_a_disk_that_is_full_is_told_of_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plots").touch()  # a file where the folder should be
    with Plotter(tmp_path / "plots", num_steps=8, every_s=0.0) as plotter:
        plotter.finish(ROWS, [])
    assert "the plots could not be drawn: " in caplog.text
    assert "plots can't be written (File exists)" in caplog.text
