"""The report page: what stands in it, and, in a real browser, that it opens, filters and reads."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plotly import graph_objects

from evaluation.report.charts import charts
from evaluation.report.html_report import render, write_page
from evaluation.report.report_data import ReportData
from tests.evaluation.report.toy_page import toy_report

DATA = r'<script type="application/json" id="data">(.*?)</script>'


@pytest.fixture(scope="module")
def text() -> str:
    return render(toy_report())


class Reader(html.parser.HTMLParser):
    """Counts elements and keeps what an address could be in."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.images.append(given)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_other_file_and_says_what_every_image_is(text: str) -> None:
    reader = Reader()
    reader.feed(text)
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert all(image["alt"] for image in reader.images)
    films = toy_report().films
    masks = sum(int(np.isfinite(film.masks).all(axis=(1, 2)).sum()) for film in films)
    assert masks == 3
    assert len(reader.images) == sum(len(film.images) for film in films) + masks + 2 * 3


def test_what_users_wrote_is_shown_and_never_run(text: str) -> None:
    assert "<title>Run &lt;first&gt;" in text
    assert "two stars above a &lt;b&gt;yellow&lt;/b&gt; square" in text
    assert "<b>yellow" not in text


def test_charts_are_what_plotly_takes_and_hold_the_numbers() -> None:
    drawn = {chart["id"]: chart for chart in charts(toy_report())}
    assert {
        "reward",
        "nfe",
        "mix",
        "scores",
        "entropy",
        "losses",
        "by-step",
        "stopping",
        "pareto-scene_soft",
        "tiers",
    } <= drawn.keys()
    for chart in drawn.values():
        graph_objects.Figure(data=chart["data"], layout=chart["layout"])
    assert drawn["nfe"]["data"][2]["y"][0] == pytest.approx(24.5)
    agent = next(one for one in drawn["pareto-scene_soft"]["data"] if one["name"] == "agent")
    assert (agent["x"], agent["y"]) == ([12.6], [0.885])
    assert agent["error_y"]["array"][0] == pytest.approx(0.885 * 0.012)
    stacked = [sum(series["y"][step] for series in drawn["by-step"]["data"]) for step in range(50)]
    assert max(stacked) <= 1.0001
    assert stacked[4] == pytest.approx(1.0)


def test_a_run_that_has_just_begun_has_a_page_too() -> None:
    page = render(ReportData(title="Run", status="running", command="addiffusion train", config="a: 1", num_steps=50))
    assert "Resolved configuration" in page
    assert "Standings" not in page


def test_numbers_that_are_none_are_valid_json(text: str) -> None:
    found = re.search(DATA, text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1])[0]["id"] == "reward"
    rows = [{**row, "entropy": float("nan")} for row in toy_report().iterations]
    changed = re.search(DATA, render(replace(toy_report(), iterations=rows)), re.DOTALL)
    assert changed is not None
    entropy = next(chart for chart in json.loads(changed[1], parse_constant=pytest.fail) if chart["id"] == "entropy")
    assert entropy["data"][0]["y"] == [None] * 24


def test_in_a_browser_it_opens_without_errors_filters_and_is_used_by_keyboard(text: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")  # CI installs it beside the first tests
    if chromium is None:
        pytest.skip("chromium is not installed")
    page = tmp_path / "page.html"
    probe_script = Path(__file__).with_name("page_probe.js").read_text()
    page.write_text(text.replace("<style>", f"<script>{probe_script}</script><style>", 1))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]  # fmt: skip
    outcome = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=240, check=True)
    found = re.search(r'<pre id="probe">(.*?)</pre>', outcome.stdout, re.DOTALL)
    assert found is not None, outcome.stderr[-2000:]
    probe = json.loads(found[1])
    assert probe["errors"] == []
    assert probe["broken"] == 0
    assert probe["drawn"] == probe["charts"] == len(charts(toy_report()))
    assert probe["all"] == [0, 1, 2, 3, 4, 5]
    assert probe["tier"] == [1, 4]
    assert probe["refined"] == [1, 3, 5]
    assert probe["focused"]
    assert probe["readout"] == "mean: 1 → 24.5"
    assert probe["cost"] == "seconds per image"
    assert sorted(probe["themes"]) == ["dark", "light"]


def test_the_file_appears_whole(tmp_path: Path) -> None:
    path = write_page(tmp_path / "report.html", toy_report(films=1))
    assert path.read_text().rstrip().endswith("</html>")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
