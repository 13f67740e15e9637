"""Charts of a training's course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from addiffusion.actions import ACTION_NAMES, Action
from addiffusion.records import SCORE_NAMES, TERM_NAMES
from evaluation.report.chart import Chart, Head, chart
from evaluation.report.report_data import Row
from evaluation.style import ACTION_COLORS, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION


def training_charts(rows: Sequence[Row]) -> list[Chart]:
    """Reward, NFE, actions, scores and losses by iteration, from the lines of metrics.jsonl."""
    steps = _column(rows, "iteration")
    terms = [
        _line(steps, _column(rows, f"term_{name}"), name, color)
        for name, color in zip(TERM_NAMES, (BLUE, VERMILLION, ORANGE, GREEN), strict=True)
    ]
    nfe = [
        _line(steps, _column(rows, "nfe_p90"), "90 %", SKY) | {"line": {"width": 0}, "showlegend": False},
        _line(steps, _column(rows, "nfe_p10"), "10-90 %", SKY)
        | {"line": {"width": 0}, "fill": "tonexty", "fillcolor": "rgba(86,180,233,0.25)"},
        _line(steps, _column(rows, "nfe"), "mean", BLUE),
    ]
    mix = [
        _line(steps, _column(rows, f"{name}_frac"), name, ACTION_COLORS[action]) | {"stackgroup": "mix"}
        for name, action in zip(ACTION_NAMES, Action, strict=True)
    ]
    scores = [
        _line(steps, _column(rows, f"score_{name}"), name.replace("_", " "), color)
        | {"yaxis": f"y{number + 1}" if number else "y"}
        for number, (name, color) in enumerate(zip(SCORE_NAMES, (BLUE, ORANGE, PURPLE), strict=True))
    ]
    losses = [
        _line(steps, _column(rows, name), title, color)
        for name, title, color in (
            ("entropy", "entropy (nats)", BLUE),
            ("policy_loss", "policy loss", ORANGE),
            ("vf_loss", "value loss", GREY),
            ("approx_kl", "KL of the update", PURPLE),
        )
    ]
    rows_of_three: dict[str, Any] = {"xaxis": {"anchor": "y3"}} | {
        f"yaxis{number or ''}": {"domain": [d, d + 0.28]} for number, d in ((0, 0.72), (2, 0.36), (3, 0))
    }
    total = _line(steps, _column(rows, "return"), "total", GREY) | {"line": {"color": GREY, "width": 3, "dash": "dot"}}
    zero = {"yaxis": {"rangemode": "tozero"}}
    return [
        chart(_head("reward", "Reward per episode", "Terms after weights, and their sum."), [*terms, total]),
        chart(_head("nfe", "NFE per image", "Mean, and the band that holds 80 % of the images."), nfe, zero),
        chart(_head("mix", "Action mix", "Share of each action among all decisions."), mix),
        chart(_head("scores", "Scores of the returned images", "One axis each: units differ."), scores, rows_of_three),
        chart(_head("losses", "Entropy and losses", "Entropy near 0 means: always the same action."), losses),
    ]


def _head(key: str, title: str, words: str) -> Head:
    return Head(id=key, section="Training", title=title, words=words, x="iteration")


def _line(x: list[float | None], y: list[float | None], name: str, color: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers" if len(x) < 3 else "lines", "name": name, "x": x, "y": y,
        "line": {"color": color, "width": 2}, "marker": {"color": color},
    }  # fmt: skip


def _column(rows: Sequence[Row], name: str) -> list[float | None]:
    return [row.get(name) for row in rows]
