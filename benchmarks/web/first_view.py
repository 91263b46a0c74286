"""The page of a large run in a browser that has nothing cached."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import Any

import typer

from advisor.local.server import LocalServer
from benchmarks.rpc.payload import PROJECT
from benchmarks.rpc.servers import resident_bytes
from benchmarks.web.processes import web_process

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_CHART_OF_ROLES = '[data-chart="shares"] .uplot canvas'
_DRAW_AGAIN = "document.dispatchEvent(new Event('visibilitychange'))"
_DRAWN = "performance.getEntriesByName('draw-charts')"
_VIEW_S = 60.0
_READ_S_PER_POINT = 0.1


@dataclass(frozen=True, slots=True)
class FirstView:
    """What a browser needed for the page of a run.

    Attributes:
        milliseconds: From the request until the figures are there, and the charts of the first
            screen are drawn: total output change, and contributions by role.
        script_milliseconds: CPU time of the page's scripts until then, with drawing the charts.
        layout_milliseconds: CPU time of styles and layout until then.
        bytes: Size of all answers until then, as they were sent.
        read_seconds: From the request until the charts show the whole history.
        draw_milliseconds: Time to draw the charts of the whole history again.
        web_bytes: Resident memory of the page's process then.
    """

    milliseconds: float
    script_milliseconds: float
    layout_milliseconds: float
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
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        session.on("Network.loadingFinished", lambda e: sizes.append(e["encodedDataLength"]))
        page.goto(f"{url}/healthz")  # the browser itself is warm
        sizes.clear()
        before = _cpu_milliseconds(session)
        started = time.perf_counter()
        page.goto(f"{url}/projects/{PROJECT}/runs/{run}")
        page.wait_for_selector(_CHART_OF_ROLES)
        elapsed = time.perf_counter() - started
        total = sum(sizes)
        after = _cpu_milliseconds(session)
        script, layout = (now - then for now, then in zip(after, before, strict=True))
        page.wait_for_selector(f'#page[data-measurements="{points}"]')
        read = time.perf_counter() - started
        page.locator('[data-chart="blocks"]').scroll_into_view_if_needed()
        count = page.evaluate(f"{_DRAWN}.length")
        page.evaluate(_DRAW_AGAIN)
        page.wait_for_function(f"{_DRAWN}.length > {count}")
        drawn = page.evaluate(f"{_DRAWN}.at(-1).duration")
        used = resident_bytes(web_process(server.pid))
        browser.close()
    return FirstView(1000 * elapsed, script, layout, total, read, drawn, used)


def _cpu_milliseconds(session: Any) -> tuple[float, float]:
    """Return the CPU time of scripts, and of styles and layout, in a page so far."""
    found = session.send("Performance.getMetrics")["metrics"]
    used = {each["name"]: 1000 * float(each["value"]) for each in found}
    return used["ScriptDuration"], used["LayoutDuration"] + used["RecalcStyleDuration"]
