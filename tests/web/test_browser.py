"""The web page in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from advisor.store.redis.embedded import running_url
from fslr import AdvisorClient
from tests.operator_tokens import Tokens
from tests.redis_servers import free_port
from tests.waiting import eventually
from tests.web.service import PROFILE, Run, WebService, register

_ROOT = Path(__file__).parents[2]
_SCREENSHOTS = _ROOT / "out" / "screenshots"
_AXE = "axe-core@4.10.3"
_AXE_FOLDER = _ROOT / "out" / "axe"
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_BASE = "/projects/default/runs/night"
_OVERFLOW = "(root => root.scrollWidth - root.clientWidth)(document.documentElement)"
_WIDTHS = {"phone": 390, "tablet": 820, "desk": 1400}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start one browser for all tests."""
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
        yield running


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


def _measurements(page: Any) -> int:
    return int(page.get_attribute("#page", "data-measurements"))


def test_every_page_opens_in_silence_at_each_width_in_light_and_dark(
    chromium: Any, service: WebService
) -> None:
    pages = {
        "overview": "/projects/default",
        "run": _BASE,
        "profile": f"/projects/default/profiles/{PROFILE}",
        "compare": "/projects/default/compare?a=night&b=plain",
        "error": "/projects/default/runs/nothing",
    }
    _SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        with Page(chromium, service.url, color_scheme=scheme) as opened:
            for name, path in pages.items():
                opened.page.goto(service.url + path)
                # Dark differs only in its colors.
                widths = _WIDTHS if scheme == "light" else {"desk": _WIDTHS["desk"]}
                for size, width in widths.items():
                    opened.page.set_viewport_size({"width": width, "height": 900})
                    overflow = opened.page.evaluate(_OVERFLOW)
                    assert overflow <= 0, (name, width)
                    opened.page.screenshot(path=_SCREENSHOTS / f"{name}-{size}-{scheme}.png")
            opened.problems = [p for p in opened.problems if "404" not in p]
            assert opened.problems == []


def test_a_chart_is_drawn_when_it_is_scrolled_to(desk: Page) -> None:
    page = desk.open(_BASE)
    assert page.locator('[data-chart="loss"] .uplot').count() == 0
    page.locator('[data-chart="loss"]').scroll_into_view_if_needed()
    page.wait_for_selector('[data-chart="loss"] .uplot canvas')


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
        steps = page.locator('[data-chart="loss"] .table tbody th').all_text_contents()
        assert steps == [str(25 * i) for i in range(8)]
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


def test_keys_move_the_cursor_and_say_the_values(desk: Page) -> None:
    page = desk.open(_BASE)
    plot = page.locator('[data-chart="total"] .plot')
    plot.scroll_into_view_if_needed()
    page.wait_for_selector('[data-chart="total"] .uplot')
    plot.focus()
    page.keyboard.press("Home")
    said = page.locator('[data-chart="total"] .values')
    assert said.text_content().startswith("step 0: total rate 0.2, reference ")
    page.keyboard.press("ArrowRight")
    assert said.text_content().startswith("step 25: total rate 0.1765")
    assert said.get_attribute("aria-live") == "polite"
    heat_map = page.locator('[data-chart="blocks"] canvas')
    heat_map.scroll_into_view_if_needed()
    heat_map.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#groups h2:has-text('blocks.0')")


def test_japanese_stays_once_it_was_chosen(desk: Page) -> None:
    page = desk.open("/projects/default")
    page.click("a[hreflang=ja]")
    page.wait_for_selector("html[lang=ja]")
    desk.open(_BASE)
    assert page.locator("#chart-total").text_content() == "出力全体の変化"
    page.wait_for_selector("#live:has-text('ライブ')")


def test_signing_in_and_out(chromium: Any, tmp_path: Path) -> None:
    with WebService(tmp_path, "--authenticate") as service:
        url = running_url(tmp_path)
        assert url is not None
        with ThreadPoolExecutor(1) as other:  # the browser's event loop runs in this thread
            token = other.submit(Tokens(url, "default").create, "viewer").result()["token"]
        with Page(chromium, service.url) as opened:
            page = opened.page
            page.goto(service.url)
            assert "/sign-in" in page.url
            page.fill("#token", token)
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Signed in as a-viewer")
            assert page.url.endswith("/projects/default")
            assert page.evaluate("document.cookie") == ""
            page.click("text=Sign out")
            page.wait_for_selector("#token")
            page.goto(service.url)
            assert "/sign-in" in page.url
            assert opened.problems == []


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe-core, which npm installs once."""
    script = _AXE_FOLDER / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed; accessibility is not tested")
        _AXE_FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(_AXE_FOLDER), "--prefer-offline", _AXE]
        try:
            done = subprocess.run(
                [*command, "--ignore-scripts", "--no-audit", "--no-fund"],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not end within 120 s; accessibility is not tested")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install axe-core: {done.stderr[-300:]}")
    return script.read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    chromium: Any, service: WebService, axe: str, scheme: str
) -> None:
    paths = [_BASE, "/projects/default/compare?a=night&b=plain"]
    if scheme == "light":  # dark differs only in its colors
        others = ("", "/runs/nothing", f"/profiles/{PROFILE}")
        paths += ["/sign-in", *(f"/projects/default{path}" for path in others)]
    # The check itself is injected, which the security policy of the page forbids otherwise.
    with Page(chromium, service.url, color_scheme=scheme, bypass_csp=True) as opened:
        for path in paths:
            opened.page.goto(service.url + path)
            if path == _BASE:
                opened.page.locator('[data-chart="loss"]').scroll_into_view_if_needed()
                opened.page.wait_for_selector('[data-chart="loss"] .uplot')
            opened.page.evaluate(axe)
            found = opened.page.evaluate("axe.run(document).then((r) => r.violations)")
            serious = [
                (each["id"], each["nodes"][0]["html"][:200])
                for each in found
                if each["impact"] in {"serious", "critical"}
            ]
            assert serious == [], path
