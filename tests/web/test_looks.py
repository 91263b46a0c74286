"""How the pages look in a real browser: sizes of windows, light and dark, accessibility."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from advisor.document.run_report import run_report
from advisor.report.run_figures import RunFigures
from advisor.report.texts import LANGUAGES
from tests.stored_runs import block_names, stored_run
from tests.web.browsing import BASE, SCREENSHOTS, WIDTHS, Page, flaws, overflow, scroll_to
from tests.web.service import PROFILE, WebService

_PAGES = {
    "overview": "/projects/default",
    "run": BASE,
    "profile": f"/projects/default/profiles/{PROFILE}",
    "compare": "/projects/default/compare?a=night&b=plain",
    "form": "/projects/default/compare",
    "error": "/projects/default/runs/nothing",
    "sign-in": "/sign-in",
}


# The main pages once more; the browser keeps the language that is asked for.
_JAPANESE = {
    f"{name}-ja": _PAGES[name] + ("&" if "?" in _PAGES[name] else "?") + "lang=ja"
    for name in ("overview", "run", "profile", "compare")
}


@dataclass(frozen=True)
class Visit:
    """What a browser found on a page.

    Attributes:
        overflows: Pixels by which the page is wider than the window, by the colors and its width.
        problems: Messages of the console.
        flaws: What axe found; None: axe is not installed.
    """

    overflows: dict[str, int]
    problems: list[str]
    flaws: list[str] | None


@pytest.fixture(scope="module")
def visits(chromium: Any, service: WebService, axe: str) -> dict[str, Visit]:
    """Look at every page at three widths, in light and dark; screenshots stay in out/."""
    found = {}
    with Page(chromium, service.url) as opened:
        for name, path in (_PAGES | _JAPANESE).items():
            opened.problems.clear()
            opened.page.goto(service.url + path)
            if path.startswith(BASE):
                _open_every_part(opened.page)
            overflows, seen = {}, []
            for colors in ("light",) if name in _JAPANESE else ("light", "dark"):
                opened.page.emulate_media(color_scheme=colors)
                for size, width in WIDTHS.items():
                    opened.page.set_viewport_size({"width": width, "height": 900})
                    overflows[f"{colors} {width}"] = overflow(opened.page)
                    opened.page.screenshot(path=SCREENSHOTS / f"{name}-{size}-{colors}.png")
                if axe:  # dark differs only in its colors
                    is_light = colors == "light"
                    options = "" if is_light else "runOnly: ['color-contrast']"
                    seen += flaws(opened.page, axe if is_light else "", options)
            found[name] = Visit(overflows, list(opened.problems), seen if axe else None)
    return found


def _open_every_part(page: Any) -> None:
    """Scroll through the page of a run, so that every part of it is loaded and drawn."""
    scroll_to(page, '[data-chart="loss"]')
    page.wait_for_selector('[data-chart="loss"] .uplot')
    page.click('[data-chart="loss"] summary')
    scroll_to(page, "#check")
    page.wait_for_selector("#check table")
    page.evaluate("scrollTo(0, 0)")


def test_every_page_fits_each_width_in_silence(visits: dict[str, Visit]) -> None:
    assert [*visits] == [*_PAGES, *_JAPANESE]
    assert {len(visits[name].overflows) for name in _PAGES} == {6}
    for name, visit in visits.items():
        assert max(visit.overflows.values()) <= 0, (name, visit.overflows)
        assert [p for p in visit.problems if name != "error" or "404" not in p] == [], name


def test_axe_finds_nothing_on_any_page_in_light_and_dark(visits: dict[str, Visit]) -> None:
    found = {name: visit.flaws for name, visit in visits.items()}
    if None in found.values():
        pytest.skip("npm or the network is missing; accessibility is not tested")
    assert found == {name: [] for name in visits}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_opens_from_disk_and_loads_nothing(
    chromium: Any, axe: str, tmp_path: Path, language: str
) -> None:
    figures = RunFigures.of(*stored_run(block_names(6), measurements=30))
    now = datetime(2026, 1, 2, 4, tzinfo=UTC)
    file = tmp_path / "report.html"
    file.write_text(run_report(figures, None, language=language, now=now), "utf-8")
    requests: list[str] = []
    with Page(chromium, file.as_uri(), offline=True) as opened:
        opened.page.on("request", lambda request: requests.append(request.url))
        page = opened.open("")
        for size, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow(page) <= 0, size
            page.screenshot(path=SCREENSHOTS / f"report-{language}-{size}.png", full_page=True)
        assert page.locator("svg").count() >= 4
        assert requests == [file.as_uri()]
        assert opened.problems == []
        assert (flaws(page, axe, "") if axe else []) == []
