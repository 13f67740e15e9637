"""The page at `/`: what it may load; in a real browser drawing, stopping, going further, cancelling, comparing."""

from __future__ import annotations

import base64
import io
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from addiffusion.actions import Action
from serving.page.assembled import assembled
from tests.cluster.browser import CHROMIUM, Page, browser
from tests.cluster.waiting import wait_for
from tests.serving.toy_server import Served, SlowBackbone, always, served, toy_model

ROOT = Path(__file__).parents[2]
LONG, SHOWN_S = 200, 20.0
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


class Moody:
    """A policy that a test changes while images are under way."""

    def __init__(self) -> None:
        self.action = Action.CONTINUE

    def __call__(self, phi: NDArray[np.float32]) -> NDArray[np.float32]:
        return always(self.action)(phi)


@pytest.fixture(scope="module")
def policy() -> Moody:
    return Moody()


@pytest.fixture(scope="module")
def server(policy: Moody) -> Iterator[Served]:
    with served(toy_model(backbone=SlowBackbone(0.01), act=policy)) as running:
        yield running


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(tab: Page, server: Served, policy: Moody) -> Iterator[Page]:
    """The page, ready, of a server whose policy goes on and on."""
    policy.action = Action.CONTINUE
    tab.watch_errors()
    tab.resize(1200, 900)
    tab.open(server.url)
    shows(tab, "document.getElementById('fields')?.disabled === false")
    yield tab
    shows(tab, "running.size === 0")
    assert tab.errors == []


def shows(page: Page, condition: str) -> None:
    wait_for(
        condition,
        lambda: page.run(condition),
        timeout_s=SHOWN_S,
        give_up=lambda: f"{page.text()} {page.errors}"[-2000:],
    )


def draw(page: Page, prompt: str, **fields: object) -> None:
    values = {"prompt": prompt, "count": 1, "seed": 3, "steps": 8, **fields}
    for name, value in values.items():
        page.run(f"document.getElementById('{name}').value = {value!r}")
    page.run("document.getElementById('prompt').focus()")
    page.press("Enter", control=True)
    shows(page, "document.querySelectorAll('.image').length > 0")


def records(page: Page) -> list[dict[str, Any]]:
    """Of the images that this browser remembers, oldest first."""
    return page.run("withStore('readonly', (store) => store.getAll())")


def kinds(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('.timeline')[0].children].map((cell) => cell.classList[0])")


def test_it_is_one_file_and_a_browser_may_run_nothing_else(server: Served) -> None:
    with urllib.request.urlopen(server.url) as answer:
        text, headers = answer.read().decode(), answer.headers
    addresses = re.findall(r"""(?:src|href|action)=["']([^"']*)["']""", text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http://" not in text.replace("http://www.w3.org", "")
    allowed = headers["Content-Security-Policy"]
    assert "default-src 'none'" in allowed
    assert "unsafe" not in allowed
    assert len(assembled().content) < 60_000


def test_its_colours_are_those_of_the_report() -> None:
    def palette(file: str) -> list[str]:
        return re.findall(r"^:root.*?\}$", (ROOT / file).read_text(), re.DOTALL | re.MULTILINE)

    assert palette("serving/page/page.css") == palette("evaluation/report/page.css")


@in_a_browser
def test_images_come_step_by_step_and_are_counted_kept_and_compared(page: Page, policy: Moody, tmp_path: Path) -> None:
    before = len(records(page) or [])
    draw(page, "a <b>toy</b> scene", count=2, steps=40)
    shows(page, "document.querySelectorAll('.look:not([hidden])').length === 2")
    policy.action = Action.REFINE
    shows(page, "document.querySelector('.timeline .refine') !== null")
    policy.action = Action.STOP
    shows(page, "document.querySelectorAll('[data-do=save]:not([hidden])').length === 2")
    shows(page, f"document.querySelectorAll('#thumbs li').length === {before + 2}")
    seen = kinds(page)
    assert seen[:2] == ["warmup"] * 2
    assert seen.count("stop") == seen.count("finish") == 1
    assert "refine" in seen
    assert seen[-1] == "unspent"
    kept = records(page)[-1]
    spent = {item["record"]["cost"] for item in records(page)[-2:]}
    assert all(cost < 40 for cost in spent)
    image = Image.open(io.BytesIO(base64.b64decode(kept["image"])))
    assert image.info["parameters"].startswith("a <b>toy</b> scene\nSteps: 40, ")
    assert "<b>toy</b>" in page.text()
    assert page.run("document.getElementById('total-images').textContent") == str(before + 2)
    page.run("document.querySelector('[data-do=full]').click()")
    shows(page, "document.querySelector('.full figcaption').textContent === 'full run: 40 passes'")
    assert page.run("document.getElementById('total-images').textContent") == str(before + 2)


@in_a_browser
def test_full_runs_of_all_images_are_drawn_beside_them(page: Page, policy: Moody) -> None:
    policy.action = Action.STOP
    page.run("document.getElementById('beside').checked = true")
    draw(page, "a toy scene", count=8)
    said = "[...document.querySelectorAll('.full figcaption')].map((one) => one.textContent)"
    shows(page, f"{said}.every((words) => words === 'full run: 8 passes') && {said}.length === 8")
    shows(page, "document.querySelectorAll('[data-do=save]:not([hidden])').length === 8")


@in_a_browser
def test_looking_back_shows_the_refined_region(page: Page, policy: Moody) -> None:
    policy.action = Action.REFINE
    draw(page, "a toy scene")
    shows(page, "document.querySelectorAll('[data-do=save]:not([hidden])').length === 1")
    page.run("const look = document.querySelector('.look'); look.value = 1; look.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelector('.mask').hidden") is False
    assert "refine" in page.run("document.querySelector('.look').getAttribute('aria-valuetext')")


@in_a_browser
def test_stop_now(page: Page) -> None:
    draw(page, "a scene that would take long", steps=LONG)
    shows(page, "document.querySelector('.look:not([hidden])') !== null")
    page.run("document.querySelector('.image').focus()")
    page.press("s")
    shows(page, "document.querySelector('figcaption').textContent.startsWith('done: stopped at step')")
    assert records(page)[-1]["record"]["cost"] < LONG / 2


@in_a_browser
def test_go_further(page: Page, policy: Moody) -> None:
    draw(page, "a scene that is to be whole", steps=60)
    shows(page, "document.querySelector('.look:not([hidden])') !== null")
    page.run("document.querySelector('[data-do=continue]').click()")
    shows(page, "document.getElementById('said').textContent.includes('goes to the end')")
    far = page.run("Number(document.querySelector('.look').max)")
    shows(page, f"document.querySelector('.look').max > {far + 2}")  # the tick that was under way is over
    policy.action = Action.STOP
    shows(page, "document.querySelector('figcaption').textContent === 'done: went to the end'")
    assert records(page)[-1]["record"]["cost"] == 60


@in_a_browser
def test_cancel_frees_the_rows(page: Page, server: Served) -> None:
    draw(page, "a scene nobody wants any more", count=3, steps=LONG)
    shows(page, "document.querySelector('.look:not([hidden])') !== null")
    wait_for("six rows", lambda: server.loop._shared.rows_wanted == 6, timeout_s=SHOWN_S)
    page.press("Escape")
    wait_for("empty rows", lambda: not server.loop._shared.busy, timeout_s=SHOWN_S)
    shows(page, "[...document.querySelectorAll('.own figcaption')].every((one) => one.textContent === 'cancelled')")


@in_a_browser
def test_without_every_decision_there_are_previews(page: Page) -> None:
    page.run("document.getElementById('watch').checked = false")
    draw(page, "a toy scene", steps=20)
    shows(page, "document.querySelectorAll('[data-do=save]:not([hidden])').length === 1")
    assert page.run("document.querySelector('.look').max") == "3"
    assert kinds(page) == ["warmup"] * 2 + ["continue"] * 18


@in_a_browser
def test_what_can_not_be_drawn_is_said(page: Page) -> None:
    draw(page, " ", steps=8)
    shows(page, "document.getElementById('problem').textContent.includes('prompt is blank')")
    page.errors[:] = [error for error in page.errors if "400" not in error]  # the browser's own line about the answer


@in_a_browser
def test_a_phone_and_the_dark(page: Page) -> None:
    draw(page, "a toy scene " + "of a very long word " * 20, count=2)
    shows(page, "document.querySelectorAll('[data-do=save]:not([hidden])').length === 2")
    page.run("document.querySelector('[data-do=full]').click()")
    for width in (360, 800, 1600):
        page.resize(width, 800)
        assert page.run("document.documentElement.scrollWidth") <= width
    for scheme, paper in {"dark": "rgb(20, 23, 27)", "light": "rgb(251, 251, 249)"}.items():
        page.prefer(scheme)
        shows(page, f"getComputedStyle(document.body).backgroundColor === '{paper}'")
    unnamed = page.run(
        "[...document.querySelectorAll('input, select, textarea, button')].filter((one) => "
        "!one.labels?.length && !one.textContent.trim() && !one.getAttribute('aria-label')).map((one) => one.outerHTML)"
    )
    assert unnamed == []


@in_a_browser
def test_it_asks_for_the_key(tab: Page) -> None:
    key = "correct-horse-battery-staple"
    with served(toy_model(), key=key) as keyed:
        tab.open(keyed.url)
        shows(tab, "document.querySelector('#key-dialog[open]') !== null")
        tab.type(key)
        tab.press("Enter")
        shows(tab, "document.getElementById('fields')?.disabled === false")
        assert key not in tab.run("document.documentElement.outerHTML")
        tab.errors.clear()
        tab.open("about:blank")
