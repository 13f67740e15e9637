"""Hooks of mkdocs.yml: README and what pages link to outside of docs/ have a place on the site; nothing leads off it.

In the repository links are relative to the file they stand in, as GitHub shows them. On the site docs/ is the root,
README the first page, docs/adr a list of decisions, and any other file lies under its own path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = "docs"
FIRST, DECISIONS = "README.md", "docs/adr"
PAGES = (FIRST, "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages beside docs/."""
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
"""Where a link of Markdown leads, without its anchor; an address has a colon and is left alone."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/, the list of decisions, and every other file that a page links to."""
    root = _root(config)
    in_docs = [posixpath.join(DOCS, file.src_uri) for file in files.documentation_pages()]
    files.append(File.generated(config, place_of(DECISIONS), content=_decisions(root, in_docs)))
    texts = {page: (root / page).read_text(encoding="utf-8") for page in (*PAGES, *in_docs)}
    linked = [resolved(page, target) for page, text in texts.items() for target in _LINK.findall(text)]
    for path in dict.fromkeys([*PAGES, *linked]):
        if (root / path).is_file() and files.get_file_from_path(place_of(path)) is None:
            files.append(File.generated(config, place_of(path), abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the repository, to where the site has their targets."""
    del files  # MkDocs hands it over by name
    root, source = _root(config), page.file.abs_src_path
    if source is None:  # made here
        return markdown
    of = Path(source).relative_to(root).as_posix()
    return _LINK.sub(lambda link: relinked(root, of, link[1]), markdown)


def resolved(page: str, target: str) -> str:
    """The path in the repository that a page's link means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def place_of(path: str) -> str:
    """Where the site has a path of the repository."""
    if path == FIRST:
        return "index.md"
    return f"{DECISIONS.removeprefix(f'{DOCS}/')}/index.md" if path == DECISIONS else path.removeprefix(f"{DOCS}/")


def relinked(root: Path, page: str, target: str) -> str:
    """A page's link on the site; one that leads to nothing stays as it is, for MkDocs to complain of."""
    path = resolved(page, target)
    if not (root / path).exists():
        return target
    return posixpath.relpath(place_of(path), posixpath.dirname(place_of(page)) or ".")


def _root(config: MkDocsConfig) -> Path:
    """The repository: where mkdocs.yml lies."""
    return Path(config.config_file_path or "mkdocs.yml").resolve().parent


def _decisions(root: Path, pages: list[str]) -> str:
    """All decisions by their titles."""
    found = sorted(page for page in pages if page.startswith(f"{DECISIONS}/"))
    titles = [(root / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for page in found]
    lines = [f"- [{title}]({posixpath.basename(page)})" for title, page in zip(titles, found, strict=True)]
    return "\n".join(["# Decisions", "", *lines, ""])
