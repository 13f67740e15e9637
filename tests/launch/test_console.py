"""What a run shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from launch.console import RunView, duration

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
