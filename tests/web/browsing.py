"""Pages in a real browser, and what is looked at on them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Self

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"
BASE = "/projects/default/runs/night"
WIDTHS = {"phone": 390, "tablet": 800, "desk": 1400}
"""Widths of windows, in pixels."""

# Charts take the width of their window in the frame after it changed.
_OVERFLOW = """() => new Promise((found) => {
  const root = document.documentElement;
  const measure = () => found(root.scrollWidth - root.clientWidth);
  requestAnimationFrame(() => requestAnimationFrame(measure));
})"""

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def browser_program() -> str | None:
    """Return the path of Chromium; None: it is not installed."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


class Page:
    """A page of a browser that notes what goes wrong.

    Args:
        chromium: The browser.
        url: Address of the service's page.
        options: Options of the browser's context.
    """

    def __init__(self, chromium: Any, url: str, **options: Any) -> None:
        self._url = url
        self._context = chromium.new_context(locale="en-GB", **options)
        self.page = self._context.new_page()
        self.page.set_default_timeout(10_000)
        self.problems: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _note(self, message: Any) -> None:
        # A lost connection is reported by the browser itself, and is part of some tests.
        if message.type in {"error", "warning"} and "ERR_CONNECTION" not in message.text:
            self.problems.append(message.text)

    def open(self, path: str) -> Any:
        """Open a path; a page of a run is ready once its curves have come."""
        self.page.goto(self._url + path)
        if "/runs/" in path:
            self.page.wait_for_selector("#page[data-measurements]")
        return self.page

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()


def steps_in_table(page: Any, chart: str, *, rows: int) -> list[str]:
    """Return the steps in the table of a chart, once it has that many rows."""
    steps = page.locator(f'[data-chart="{chart}"] .table tbody th')
    steps.nth(rows - 1).wait_for()
    found: list[str] = steps.all_text_contents()
    return found


def measurements_on(page: Any) -> int:
    return int(page.get_attribute("#page", "data-measurements"))


def scroll_to(page: Any, selector: str) -> None:
    page.locator(selector).scroll_into_view_if_needed()


def hide(page: Any, *, hidden: bool) -> None:
    """Let the page think that its tab is hidden; a headless browser shows all of its tabs."""
    page.evaluate(
        "value => { Object.defineProperty(document, 'hidden', { value, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def overflow(page: Any) -> int:
    """Return the pixels by which a page is wider than its window."""
    found: int = page.evaluate(_OVERFLOW)
    return found


def flaws(page: Any, axe: str, options: str) -> list[str]:
    """Return what axe finds; its source is given once a page."""
    if axe:
        page.evaluate(axe)
    run = f"axe.run(document, {{preload: false, {options}}}).then((r) => r.violations)"
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in page.evaluate(run)]
