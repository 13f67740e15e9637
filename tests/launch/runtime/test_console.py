"""What a run shows."""

from __future__ import annotations

import io
import time
from itertools import pairwise

import pytest
from rich.console import Console

from launch.runtime import console as module
from launch.runtime.console import RunView, Stage, duration

ROW = {
    "return": -0.25, "term_quality": 0.1, "term_efficiency": -0.3, "term_terminal": -0.05, "nfe": 21.5,
    "score_clip": 0.31, "score_aesthetic": 5.0, "score_image_reward": 0.2, "continue_frac": 0.5, "stop_frac": 0.3,
    "refine_frac": 0.2, "episodes_per_s": 3.2, "eta_s": 185.0,
}  # fmt: skip


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=130)
    with RunView(console, iterations=30) as view:
        view.say("hello")
        with view.progress("references", 4) as advance:
            advance(4)
        for iteration in range(1, 21):
            view.iteration({"iteration": iteration, **ROW})
    return stream.getvalue()


def test_plain_output_is_one_line_per_iteration() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[:2] == ["hello", "references: 4"]
    assert lines[2].split() == ["iter", "reward", "quality", "effic.", "final", "NFE", "CLIP", "aesth.", "pref.",
                                "cont%", "stop%", "ref%", "ep/s", "ETA"]  # fmt: skip
    assert lines[22].split() == ["20", "-0.250", "+0.100", "-0.300", "-0.050", "21.5", "0.310", "5.00", "+0.20",
                                 "50", "30", "20", "3.2", "3m05"]  # fmt: skip
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_live_table() -> None:
    output = shown(terminal=True)
    assert "20/30" in output
    assert "3m05" in output


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3s"), (59.6, "1m00"), (185, "3m05"), (3725, "1h02")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Page(io.StringIO):
    """What was printed, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.times = [time.monotonic()]

    def write(self, text: str) -> int:
        if text.strip():
            self.times.append(time.monotonic())
        return super().write(text)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(module, "SILENCE_S", 0.2)
    return Page()


def quiet_for(page: Page) -> float:
    """Longest silence, in seconds."""
    times = [*page.times, time.monotonic()]
    return max(later - earlier for earlier, later in pairwise(times))


def test_a_stage_is_never_silent_though_nothing_advances(page: Page) -> None:
    with Stage(Console(file=page, width=60), "full-length images", 1536):
        time.sleep(1.1)
    lines = page.getvalue().splitlines()
    assert lines[:2] == ["full-length images: 1536", "full-length images: 0 of 1536, 0s so far"]
    assert lines[-1] == "full-length images: 0 of 1536, 1s so far"
    assert quiet_for(page) < 0.8


def test_a_line_has_rate_and_time_left(page: Page) -> None:
    with Stage(Console(file=page, width=20), "images of [red] things", 1000, first=100) as stage:
        stage.advance(10, "DDIM-20")
        time.sleep(0.5)
    said = page.getvalue().splitlines()[-1]
    assert said.startswith("images of [red] things (DDIM-20): 110 of 1000, ")
    rate, left = (part.split()[0] for part in said.split(", ")[1:])
    assert 10 < float(rate.removesuffix("/s")) < 60
    assert 10 < int(left.removesuffix("s")) < 60


def test_work_that_nobody_can_count_says_how_long_it_takes(page: Page) -> None:
    with Stage(Console(file=page), "measuring") as stage:
        stage.remark("round 2")
        time.sleep(0.3)
    assert page.getvalue().splitlines() == ["measuring (round 2): 0s so far"]


def test_what_is_counted_elsewhere_is_asked_for(page: Page) -> None:
    with Stage(Console(file=page), "trials", 40, counted=lambda: 4):
        time.sleep(0.3)
    assert page.getvalue().splitlines()[1].startswith("trials: 4 of 40, ")


def test_a_short_stage_has_its_one_line() -> None:
    page = Page()
    with Stage(Console(file=page), "held-out images", 360) as stage:
        stage.advance(360)
    assert page.getvalue() == "held-out images: 360\n"


def test_a_long_iteration_is_not_silent(page: Page) -> None:
    with RunView(Console(file=page, width=130), iterations=30) as view, view.iterations(done=3):
        time.sleep(0.5)
        view.iteration({"iteration": 4, **ROW})
        time.sleep(0.5)
    lines = page.getvalue().splitlines()
    assert lines[0] == "training: 3 of 30, 0s so far"
    assert [line for line in lines if line.split()[:2] == ["4", "-0.250"]]
    assert lines[-1].startswith("training: 4 of 30, ")
    assert lines[-1].endswith(" left")
    assert quiet_for(page) < 0.8


def test_a_terminal_gets_a_bar_that_goes() -> None:
    stream = io.StringIO()
    with Stage(Console(file=stream, force_terminal=True, width=100), "images [x]", 4) as stage:
        stage.advance(3, "DDIM-20")
    assert "images [x] (DDIM-20)" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("images [x]: 4")
