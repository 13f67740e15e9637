"""The site of README and docs/: built as `just docs` builds it, without a network; a link that leads nowhere fails."""

from __future__ import annotations

import re
import socket
from html import unescape
from pathlib import Path
from typing import NoReturn

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

import addiffusion

ROOT = Path(__file__).parents[1]
PLAIN = f"""
site_name: small
docs_dir: docs
use_directory_urls: false
hooks: [{ROOT}/scripts/site_pages.py]
plugins: []
theme: mkdocs
validation:
  links: {{not_found: warn, anchors: warn, absolute_links: warn, unrecognized_links: warn}}
"""
"""A configuration that is quick to build; its checks of links are those of mkdocs.yml."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the site asks for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(ROOT)
        build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(place)))
    return place


def test_every_page_is_on_the_site(site: Path) -> None:
    written = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    pages = [page.with_suffix(".html") for page in written if page.parts[:2] != ("results", "policies")]
    assert len(pages) > 50
    assert [page for page in (*pages, Path("index.html")) if not (site / page).is_file()] == []
    decisions = (site / "adr/index.html").read_text(encoding="utf-8")
    assert all(f'href="{page.name}"' in decisions for page in pages if page.parent.name == "adr")


def test_whatever_is_exported_is_on_the_page_with_its_example(site: Path) -> None:
    page = (site / "python_api.html").read_text(encoding="utf-8")
    parts = re.split(r'<h2 id="addiffusion\.(\w+)"', page)
    described = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert described.keys() == set(addiffusion.__all__)
    without = {name for name, text in described.items() if ">>> from addiffusion import" not in plain(text)}
    assert without == set()


def plain(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html))


def test_nothing_is_fetched_to_read_it(site: Path) -> None:
    fetched = re.compile(r'(?:src="|<link [^>]*href="|url\()https?://')
    files = [file for kind in ("*.html", "*.css") for file in site.rglob(kind)]
    assert [str(file) for file in files if fetched.search(file.read_text(encoding="utf-8"))] == []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository of a few pages that link to each other and to a file outside of docs/."""
    texts = {
        "mkdocs.yml": PLAIN,
        "cluster.yaml": "nodes: 2",
        "README.md": "# First\n[one](docs/one.md#here) [all](docs/adr) [file](cluster.yaml)",
        "CONTRIBUTING.md": "# How\n[log](CHANGELOG.md)",
        "CHANGELOG.md": "# Log\n",
        "docs/one.md": "# One\n## Here\n[first](../README.md) [file](../cluster.yaml) [why](adr/0001-a.md)",
        "docs/adr/0001-a.md": "# 1. Why\n[one](../one.md#here) [file](../../cluster.yaml) [away](https://example.org/a)",
    }
    for name, text in texts.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def built(place: Path) -> Path:
    build(load_config(str(place / "mkdocs.yml"), strict=True))
    return place / "site"


def test_links_of_the_repository_lead_to_the_same_on_the_site(small: Path) -> None:
    site = built(small)
    assert (site / "cluster.yaml").read_text() == "nodes: 2"
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # which a server shows in any folder
        for target in re.findall(r'<a href="(?!https:)([^"#]+)', page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), (page.name, target)
    assert 'href="../cluster.yaml"' in (site / "adr/0001-a.html").read_text()
    assert 'href="adr/index.html"' in (site / "index.html").read_text()


@pytest.mark.parametrize("link", ["absent.md", "../absent.yaml", "one.md#absent", "../docs", "/one.md"])
def test_a_link_that_leads_nowhere_fails(small: Path, link: str) -> None:
    with (small / "docs/one.md").open("a") as page:
        page.write(f" [x]({link})")
    with pytest.raises(Abort, match="with 1 warnings"):
        built(small)
