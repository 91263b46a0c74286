"""The web page in a real browser."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest

from advisor.document.run_report import run_report
from advisor.report.run_figures import RunFigures
from advisor.report.texts import LANGUAGES
from advisor.report.words import format_number
from advisor.store.redis.embedded import running_url
from fslr import AdvisorClient
from tests.operator_tokens import Tokens
from tests.redis_servers import free_port
from tests.stored_runs import block_names, stored_run
from tests.waiting import eventually
from tests.web.service import PROFILE, Run, WebService, register

_ROOT = Path(__file__).parents[2]
_SCREENSHOTS = _ROOT / "out" / "screenshots"
_AXE = "axe-core@4.10.3"
_AXE_FOLDER = _ROOT / "out" / "axe"
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_BASE = "/projects/default/runs/night"
# Charts take the width of their window in the frame after it changed.
_OVERFLOW = """() => new Promise((found) => {
  const root = document.documentElement;
  const measure = () => found(root.scrollWidth - root.clientWidth);
  requestAnimationFrame(() => requestAnimationFrame(measure));
})"""
_WIDTHS = {"phone": 390, "tablet": 800, "desk": 1400}
_PAGES = {
    "overview": "/projects/default",
    "run": _BASE,
    "profile": f"/projects/default/profiles/{PROFILE}",
    "compare": "/projects/default/compare?a=night&b=plain",
    "form": "/projects/default/compare",
    "error": "/projects/default/runs/nothing",
    "sign-in": "/sign-in",
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start one browser for all tests."""
    _SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    """Run a service with a run of 12 measurements, and one that only observes."""
    folder = tmp_path_factory.mktemp("data")
    with WebService(folder, http=free_port()) as running:
        with AdvisorClient(running.address) as client:
            register(client)
            for name, observe_only in (("night", False), ("plain", True)):
                run = Run(client, name, observe_only=observe_only)
                run.measure(12)
                run.close()
            # The last metric by name has no finite value, which hides its own chart only.
            for step in (0, 25, 50):
                client.report_run_metrics("night", step, {"auc": 0.5, "loss": float("nan")})
        yield running


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe-core, which npm installs once; empty: it cannot."""
    script = _AXE_FOLDER / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        _AXE_FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(_AXE_FOLDER), "--prefer-offline", _AXE]
        options = ["--ignore-scripts", "--no-audit", "--no-fund"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([*command, *options], capture_output=True, check=True, timeout=120)
    return script.read_text("utf-8") if script.is_file() else ""


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


@pytest.fixture
def desk(chromium: Any, service: WebService) -> Iterator[Page]:
    """Return a page whose console and security policy must stay silent."""
    with Page(chromium, service.url, viewport={"width": 1400, "height": 900}) as page:
        yield page
        assert page.problems == []


def _steps_in_table(page: Any, chart: str, *, rows: int) -> list[str]:
    """Return the steps in the table of a chart, once it has that many rows."""
    steps = page.locator(f'[data-chart="{chart}"] .table tbody th')
    steps.nth(rows - 1).wait_for()
    found: list[str] = steps.all_text_contents()
    return found


def _measurements(page: Any) -> int:
    return int(page.get_attribute("#page", "data-measurements"))


def _scroll_to(page: Any, selector: str) -> None:
    page.locator(selector).scroll_into_view_if_needed()


def _hide(page: Any, *, hidden: bool) -> None:
    """Let the page think that its tab is hidden; a headless browser shows all of its tabs."""
    page.evaluate(
        "value => { Object.defineProperty(document, 'hidden', { value, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


@dataclass(frozen=True)
class Visit:
    """What a browser found on a page.

    Attributes:
        overflows: Pixels by which the page is wider than the window, by the window's width.
        problems: Messages of the console.
        flaws: What axe found in light and dark; None: axe is not installed.
    """

    overflows: dict[int, int]
    problems: list[str]
    flaws: list[str] | None


@pytest.fixture(scope="module")
def visits(chromium: Any, service: WebService, axe: str) -> dict[str, Visit]:
    """Look at every page at three widths, in light and dark; screenshots stay in out/."""
    found = {}
    with Page(chromium, service.url) as opened:
        for name, path in _PAGES.items():
            opened.problems.clear()
            opened.page.goto(service.url + path)
            if name == "run":
                _scroll_to(opened.page, '[data-chart="loss"]')
                opened.page.wait_for_selector('[data-chart="loss"] .uplot')
                opened.page.click('[data-chart="loss"] summary')
                _scroll_to(opened.page, "#check")
                opened.page.wait_for_selector("#check table")
            opened.page.evaluate("scrollTo(0, 0)")
            overflows = {}
            for size, width in _WIDTHS.items():
                opened.page.set_viewport_size({"width": width, "height": 900})
                overflows[width] = opened.page.evaluate(_OVERFLOW)
                opened.page.screenshot(path=_SCREENSHOTS / f"{name}-{size}-light.png")
            flaws = _flaws(opened.page, axe, "") if axe else []
            opened.page.emulate_media(color_scheme="dark")  # differs only in its colors
            opened.page.screenshot(path=_SCREENSHOTS / f"{name}-desk-dark.png")
            flaws += _flaws(opened.page, "", "runOnly: ['color-contrast']") if axe else []
            opened.page.emulate_media(color_scheme="light")
            found[name] = Visit(overflows, list(opened.problems), flaws if axe else None)
    return found


def _flaws(page: Any, axe: str, options: str) -> list[str]:
    """Return what axe finds; its source is given once a page."""
    if axe:
        page.evaluate(axe)
    run = f"axe.run(document, {{preload: false, {options}}}).then((r) => r.violations)"
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in page.evaluate(run)]


def test_every_page_fits_each_width_in_silence(visits: dict[str, Visit]) -> None:
    assert visits.keys() == _PAGES.keys()
    for name, visit in visits.items():
        assert max(visit.overflows.values()) <= 0, (name, visit.overflows)
        assert [p for p in visit.problems if name != "error" or "404" not in p] == [], name


def test_axe_finds_nothing_on_any_page_in_light_and_dark(visits: dict[str, Visit]) -> None:
    found = {name: visit.flaws for name, visit in visits.items()}
    if None in found.values():
        pytest.skip("npm or the network is missing; accessibility is not tested")
    assert found == {name: [] for name in _PAGES}


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
        for size, width in _WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(_OVERFLOW) <= 0, size
            page.screenshot(path=_SCREENSHOTS / f"report-{language}-{size}.png", full_page=True)
        assert page.locator("svg").count() >= 4
        assert requests == [file.as_uri()]
        assert opened.problems == []
        assert (_flaws(page, axe, "") if axe else []) == []


def test_scripts_write_numbers_as_the_server_does(desk: Page) -> None:
    numbers = [5.9e-5, -3e-10, 0.00012, 0, 0.2, 1.23456, 9999.6, 12345.6, 9999999, 1e7, 1.5e12]
    page = desk.open("/projects/default")
    script = """async (numbers) => {
        const { number } = await import('/static/format.js');
        return numbers.map((value) => number(value));
    }"""
    assert page.evaluate(script, numbers) == [format_number(number) for number in numbers]


def test_a_chart_is_drawn_when_it_is_scrolled_to(desk: Page) -> None:
    page = desk.open(_BASE)
    assert page.locator('[data-chart="loss"] .uplot').count() == 0
    page.locator('[data-chart="loss"]').scroll_into_view_if_needed()
    page.wait_for_selector('[data-chart="loss"] .uplot canvas')
    _scroll_to(page, "#metrics")
    page.wait_for_selector('[data-title="auc"] .uplot canvas')
    assert page.locator('[data-title="loss"]').count() == 0  # it has no finite value
    assert page.locator("#metrics table").first.is_visible()


def test_a_measurement_appears_while_the_page_is_open(desk: Page, service: WebService) -> None:
    with AdvisorClient(service.address) as client:
        register(client)
        run = Run(client, "live")
        run.measure(3)
        page = desk.open("/projects/default/runs/live")
        eventually(lambda: _measurements(page) == 3 or page.wait_for_timeout(50))
        page.wait_for_selector("#live.live:not(.lost)")
        run.measure(2)
        page.wait_for_selector('#page[data-measurements="5"]')
        page.wait_for_selector(f"#figures .strip:has-text('{run.last_step} / 10000')")
        run.close()


def test_a_page_misses_nothing_and_gets_nothing_twice_when_the_service_restarts(
    chromium: Any, tmp_path: Path
) -> None:
    port = free_port()
    with WebService(tmp_path, http=port) as first, AdvisorClient(first.address) as client:
        register(client)
        run = Run(client, "night")
        run.measure(4)
        run.close()
        url = first.url
        opened = Page(chromium, url)
        page = opened.open(_BASE)
        page.wait_for_selector('#page[data-measurements="4"]')
        page.wait_for_selector("#live.live:not(.lost)")
    page.wait_for_selector("#live.lost")
    with WebService(tmp_path, http=port) as second, AdvisorClient(second.address) as client:
        run = Run(client, "night")
        run.measurements = 4
        run.measure(3)
        page.wait_for_selector('#page[data-measurements="7"]', timeout=20_000)
        page.wait_for_selector("#live.live:not(.lost)")
        run.measure(1)
        page.wait_for_selector('#page[data-measurements="8"]')
        run.close()
        page.locator('[data-chart="loss"]').scroll_into_view_if_needed()
        page.click('[data-chart="loss"] summary')
        assert _steps_in_table(page, "loss", rows=8) == [str(25 * i) for i in range(8)]
    with opened:
        assert opened.problems == []


def test_a_click_lists_the_groups_of_a_layer_or_role(desk: Page) -> None:
    page = desk.open(_BASE)
    heat_map = page.locator('[data-chart="blocks"] canvas')
    heat_map.scroll_into_view_if_needed()
    eventually(lambda: heat_map.evaluate("c => c.width > 400") or page.wait_for_timeout(50))
    heat_map.click(position={"x": 300, "y": 30})  # the second of five rows
    page.wait_for_selector("#groups h2:has-text('blocks.0')")
    assert page.locator("#groups tbody tr").count() == 2
    page.click("a[data-role='blocks.*.mlp.weight']")
    page.wait_for_selector("#groups h2:has-text('blocks.*.mlp.weight')")
    assert page.locator("#groups tbody tr").count() == 3
    page.click("#groups button")
    eventually(lambda: page.locator("#groups tbody").count() == 0 or page.wait_for_timeout(50))


def test_keys_move_the_cursor_say_the_values_and_open_the_table(desk: Page) -> None:
    page = desk.open(_BASE)
    _scroll_to(page, '[data-chart="total"] .plot')
    page.wait_for_selector('[data-chart="total"] .uplot')
    page.locator('[data-chart="total"] .plot').focus()
    page.keyboard.press("Home")
    said = page.locator('[data-chart="total"] .values')
    assert said.text_content().startswith("step 0: total rate 0.2, reference ")
    page.keyboard.press("ArrowRight")
    assert said.text_content().startswith("step 25: total rate 0.1765")
    assert said.get_attribute("aria-live") == "polite"
    page.keyboard.press("End")
    last = said.text_content()
    page.keyboard.press("Tab")  # from the plot to its table
    page.keyboard.press("Enter")
    rows = page.locator('[data-chart="total"] tbody tr')
    heads = page.locator('[data-chart="total"] .table thead th').all_text_contents()
    table = [row.locator("th, td").all_text_contents() for row in rows.all() if row.is_visible()]
    shown = [row for row in table if len(row) == len(heads)]
    assert [row[0] for row in shown] == [str(25 * i) for i in range(12)]
    assert [row[1] for row in shown[:2]] == ["0.2", "0.1765"]
    assert last.startswith(f"step 275: total rate {shown[-1][1]}, reference {shown[-1][2]}")
    heat_map = page.locator('[data-chart="blocks"] canvas')
    heat_map.scroll_into_view_if_needed()
    heat_map.focus()
    page.keyboard.press("ArrowDown")
    said = page.locator('[data-chart="blocks"] .values').text_content()
    assert re.fullmatch(r"step 0, blocks\.0: \d+(\.\d+)?%", said)
    page.keyboard.press("Enter")
    page.wait_for_selector("#groups h2:has-text('blocks.0')")


def test_a_hidden_tab_holds_no_connection_and_misses_nothing(
    desk: Page, service: WebService
) -> None:
    with AdvisorClient(service.address) as client:
        run = Run(client, "hidden")
        run.measure(3)
        page = desk.open("/projects/default/runs/hidden")
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfinished", lambda request: requests.append("ended " + request.url))
        page.wait_for_selector("#live.live:not(.lost)")
        run.measure(1)
        page.wait_for_selector('#page[data-measurements="4"]')
        _hide(page, hidden=True)
        requests.clear()
        run.measure(3)
        page.wait_for_timeout(500)
        assert _measurements(page) == 4
        assert requests == []
        _hide(page, hidden=False)
        page.wait_for_selector('#page[data-measurements="7"]')
        run.measure(1)
        page.wait_for_selector('#page[data-measurements="8"]')
        run.close()
        assert [url.partition("events?")[2][:6] for url in requests if "events?" in url] == [
            "after="
        ]
        _scroll_to(page, '[data-chart="loss"]')
        page.click('[data-chart="loss"] summary')
        assert _steps_in_table(page, "loss", rows=8) == [str(25 * i) for i in range(8)]


def test_japanese_stays_once_it_was_chosen(desk: Page) -> None:
    page = desk.open("/projects/default")
    page.click("a[hreflang=ja]")
    page.wait_for_selector("html[lang=ja]")
    desk.open(_BASE)
    assert page.locator("#chart-total").text_content() == "ステップごとの出力全体の変化"
    page.wait_for_selector("#live:has-text('自動更新中')")


def test_signing_in_shows_one_project_and_no_other(chromium: Any, tmp_path: Path) -> None:
    with WebService(tmp_path, "--authenticate") as service:
        url = running_url(tmp_path)
        assert url is not None
        with ThreadPoolExecutor(1) as other:  # the browser's event loop runs in this thread
            tokens = Tokens(url, "default")
            token = other.submit(tokens.create, "viewer").result()["token"]
            theirs = other.submit(tokens.create, "operator", "other").result()["token"]
        with AdvisorClient(service.address, token=theirs) as client:
            register(client, project="other")
            run = Run(client, "secret", project="other")
            run.measure(2)
            run.close()
        with Page(chromium, service.url) as opened:
            page = opened.page
            page.goto(service.url)
            assert "/sign-in" in page.url
            page.fill("#token", token)
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Signed in as a-viewer")
            assert page.url.endswith("/projects/default")
            assert page.evaluate("document.cookie") == ""
            assert opened.problems == []
            for path in ("", "/runs/secret", f"/profiles/{PROFILE}", "/compare?a=secret&b=secret"):
                page.goto(f"{service.url}/projects/other{path}")
                text = page.locator("main").text_content()
                assert "Your token does not allow this" in text, path
                assert "0.1765" not in text
            fetched = page.evaluate(
                "path => fetch(path).then(async (a) => [a.status, await a.text()])",
                "/projects/other/runs/secret/curves.json",
            )
            assert fetched[0] == 403
            assert "total_rate" not in fetched[1]
            page.goto(service.url)
            page.click("text=Sign out")
            page.wait_for_selector("#token")
            page.goto(service.url)
            assert "/sign-in" in page.url
            assert all("403" in problem for problem in opened.problems)
