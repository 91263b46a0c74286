"""The page of a large run in a browser that has nothing cached."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass

import typer

from advisor.local.server import LocalServer
from benchmarks.rpc.payload import PROJECT
from benchmarks.rpc.servers import resident_bytes
from benchmarks.web.processes import web_process

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_READY = "#page[data-measurements]"
_DRAW_AGAIN = "document.dispatchEvent(new Event('visibilitychange'))"
_DRAWN = "performance.getEntriesByName('draw-charts')"
_VIEW_S = 60.0
_READ_S_PER_POINT = 0.1


@dataclass(frozen=True, slots=True)
class FirstView:
    """What a browser needed for the page of a run.

    Attributes:
        milliseconds: From the request until the figures and the data of the charts are there.
        bytes: Size of all answers until then, as they were sent.
        read_seconds: From the request until the charts show the whole history.
        draw_milliseconds: Time to draw the charts of the whole history again.
        web_bytes: Resident memory of the page's process then.
    """

    milliseconds: float
    bytes: float
    read_seconds: float
    draw_milliseconds: float
    web_bytes: float


def first_view(server: LocalServer, run: str, points: int) -> FirstView:
    """Open the page of a run.

    Args:
        server: The service; no page has been opened so far.
        run: The run's id.
        points: Number of its measurements.

    Raises:
        typer.BadParameter: Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only this benchmark needs it

    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        raise typer.BadParameter("Chromium is not installed (Debian: apt-get install chromium)")
    url = server.web_url()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(1_000 * (_VIEW_S + _READ_S_PER_POINT * points))
        sizes: list[float] = []
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda e: sizes.append(e["encodedDataLength"]))
        page.goto(f"{url}/healthz")  # the browser itself is warm
        sizes.clear()
        started = time.perf_counter()
        page.goto(f"{url}/projects/{PROJECT}/runs/{run}")
        page.wait_for_selector(_READY)
        elapsed = time.perf_counter() - started
        total = sum(sizes)
        page.wait_for_selector(f'#page[data-measurements="{points}"]')
        read = time.perf_counter() - started
        page.locator('[data-chart="blocks"]').scroll_into_view_if_needed()
        page.wait_for_selector('[data-chart="shares"] .uplot')
        count = page.evaluate(f"{_DRAWN}.length")
        page.evaluate(_DRAW_AGAIN)
        page.wait_for_function(f"{_DRAWN}.length > {count}")
        drawn = page.evaluate(f"{_DRAWN}.at(-1).duration")
        used = resident_bytes(web_process(server.pid))
        browser.close()
    return FirstView(1000 * elapsed, total, read, drawn, used)
