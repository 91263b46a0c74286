"""Checks a built site: every link leads somewhere, and nothing is loaded from another host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {  # what a browser fetches by itself, and the attribute that names it
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
_NOT_LOADED = {"canonical", "next", "prev"}  # kinds of <link> that only name something
_OUTSIDE = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"](?:https?:)?//")


@dataclass
class _Page(HTMLParser):
    """What a page refers to.

    Attributes:
        anchors: Its anchors.
        links: Where its links lead.
        loaded: What a browser loads with it.
    """

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's anchor, link and source."""
        given = {name: value for name, value in attrs if value is not None}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        is_loaded = tag in _LOADED and given.get("rel") not in _NOT_LOADED
        if is_loaded and _LOADED[tag] in given:
            self.loaded.append(given[_LOADED[tag]])


def problems_of(site: Path) -> list[str]:
    """Return what is wrong with a site, one line each.

    Args:
        site: The folder with its HTML files.
    """
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    problems = [
        f"{path.relative_to(site)}: {problem}"
        for path, page in pages.items()
        if path.name != "404.html"
        for problem in _of_page(path, page, pages, site)
    ]
    problems += [
        f"{sheet.relative_to(site)}: loads from another host"
        for sheet in sorted(site.rglob("*.css"))
        if _OUTSIDE.search(sheet.read_text("utf-8"))
    ]
    return problems


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    return page


def _of_page(path: Path, page: _Page, pages: dict[Path, _Page], site: Path) -> list[str]:
    problems = [f"loads {url} from another host" for url in page.loaded if urlsplit(url).netloc]
    for link in sorted({*page.links, *page.loaded}):
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        start = site if url.path.startswith("/") else path.parent
        aim = (start / unquote(url.path).lstrip("/")).resolve() if url.path else path
        aim = aim / "index.html" if aim.is_dir() else aim
        if not aim.is_file():
            problems.append(f"{link} leads nowhere")
        elif url.fragment and aim in pages and unquote(url.fragment) not in pages[aim].anchors:
            problems.append(f"{link} names an anchor that is not there")
    return problems
